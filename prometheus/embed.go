// Package prometheus holds the files that Prometheus uses, for those that the
// binary needs as well.
package prometheus

import _ "embed"

// Rules is rules/routing-service.rules.yml.
//
//go:embed rules/routing-service.rules.yml
var Rules []byte
