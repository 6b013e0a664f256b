package httpapi

import (
	"compress/gzip"
	"fmt"
	"net/http"
	"time"

	"github.com/klauspost/compress/gzhttp"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Bounds of a scrape.
const (
	maxScrapes    = 4
	scrapeTimeout = 10 * time.Second
)

// compressed compresses answers at the fastest level. promhttp, which has no
// choice of level, takes three times as long.
var compressed, _ = gzhttp.NewWrapper(gzhttp.CompressionLevel(gzip.BestSpeed), gzhttp.EnableZstd(false)) // both are sound

func (s *Server) metricsHandler() func(*answer, *http.Request) error {
	h := promhttp.HandlerFor(s.o.Metrics, promhttp.HandlerOpts{
		MaxRequestsInFlight: maxScrapes, EnableOpenMetrics: true, DisableCompression: true,
	})
	bounded := http.TimeoutHandler(compressed(h), scrapeTimeout, fmt.Sprintf("The metrics could not be gathered within %s.\n", scrapeTimeout))
	return func(w *answer, r *http.Request) error {
		bounded.ServeHTTP(w, r)
		return nil
	}
}
