package pki

import dto "github.com/prometheus/client_model/go"

// Failures is how many reloads failed.
func (c *Certificates) Failures() int {
	var m dto.Metric
	if err := c.failures.Write(&m); err != nil {
		panic(err)
	}
	return int(m.GetCounter().GetValue())
}
