// Package bare has no changes.
package bare
