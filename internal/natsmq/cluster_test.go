package natsmq_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"headway/internal/freeport"
	"headway/internal/natsmq"
)

// cluster starts three servers in this process, and returns their addresses and
// streams on them once these can be made.
func cluster(t *testing.T) ([]string, jetstream.JetStream) {
	t.Helper()
	var ports []int
	for range 6 {
		ports = append(ports, freeport.Take(t))
	}
	var routes []*url.URL
	for _, port := range ports[3:] {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprint("127.0.0.1:", port)})
	}
	var urls []string
	for i := range 3 {
		o := &server.Options{
			ServerName: fmt.Sprint("n", i), Port: ports[i], Routes: routes,
			Cluster: server.ClusterOpts{Name: "three", Host: "127.0.0.1", Port: ports[3+i]},
		}
		urls = append(urls, "nats://"+inProcess(t, o).Addr().String())
	}
	nc, err := nats.Connect(strings.Join(urls, ","))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js := jetStream(t, nc, jetstream.WithDefaultTimeout(10*time.Second))
	for limit := time.Now().Add(60 * time.Second); ; {
		_, err := js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: "PROBE", Subjects: []string{"probe"}, Replicas: 3})
		if err == nil {
			break
		}
		if time.Now().After(limit) {
			t.Fatal(err)
		}
	}
	return urls, js
}

func replicasOf(t *testing.T, js jetstream.JetStream, name string) int {
	t.Helper()
	stream, err := js.Stream(t.Context(), name)
	if err != nil {
		return 0
	}
	return stream.CachedInfo().Config.Replicas
}

// Streams are on three servers, whether the configuration names these or they
// announce each other, and also when they came later; what the operator has made
// stays as it is.
func TestStreamsHaveThreeReplicasOnThreeServers(t *testing.T) {
	urls, js := cluster(t)
	const ours, letters = "HEADWAY_COMMANDS", "HEADWAY_DEAD_LETTERS"
	w := newWorld(t, func(o *natsmq.Options) { o.External.URL, o.Listen, o.Dir = strings.Join(urls[:2], ","), "", "" })
	w.ready()
	if got := replicasOf(t, js, ours) + replicasOf(t, js, letters); got != 6 {
		t.Fatalf("two are configured: %d replicas of two streams; want 6", got)
	}

	// As if two of the servers had not been there at first.
	stream, err := js.Stream(t.Context(), ours)
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	config.Replicas = 1
	w.until("the stream is changed", func() bool { _, err := js.UpdateStream(t.Context(), config); return err == nil })
	w.until("the stream has grown", func() bool { return replicasOf(t, js, ours) == 3 })

	config.Metadata = map[string]string{"owner": "operator"}
	w.until("the stream is changed", func() bool { _, err := js.UpdateStream(t.Context(), config); return err == nil })
	<-time.After(3 * quick.Sweep) // for looks that would change it
	if n := replicasOf(t, js, ours); n != 1 {
		t.Errorf("the operator's stream has %d replicas", n)
	}
}
