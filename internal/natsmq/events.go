package natsmq

import (
	"context"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"

	"headway/api"
	"headway/internal/apiv1"
)

// cloudEvent is a CloudEvent 1.0 in JSON (structured mode).
type cloudEvent struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`
	Source          string    `json:"source"`
	Type            string    `json:"type"`
	Subject         string    `json:"subject,omitempty"`
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	Data            any       `json:"data"`
}

// publishEvents publishes events until ctx ends, head.expired on
// headway.v1.events.head.expired.
func (q *Queue) publishEvents(ctx context.Context) {
	for {
		e, lost, err := q.events.Next(ctx)
		if err != nil {
			return
		}
		data := apiv1.EventOf(q.o.Instance, &e)
		if lost > 0 {
			q.publishEvent(api.MessageLost, &cloudEvent{ID: data.ID + "-lost", Time: time.Now().UTC(), Data: api.Lost{Count: lost, Reason: "slow"}})
		}
		q.publishEvent(e.Type, &cloudEvent{ID: data.ID, Subject: e.Head, Time: data.Time, Data: data})
	}
}

func (q *Queue) publishEvent(kind string, e *cloudEvent) {
	e.SpecVersion, e.Source, e.Type, e.DataContentType = "1.0", "/headway/"+q.o.Instance, "headway."+kind, "application/json"
	m := nats.NewMsg(prefix + queueEvents + "." + kind)
	m.Header.Set("Content-Type", "application/cloudevents+json")
	var err error
	if m.Data, err = json.Marshal(e); err == nil {
		err = q.nc.PublishMsg(m)
	}
	status := published
	if err != nil {
		status = publishFailed
	}
	q.o.Messages.add(queueEvents, status, 1)
}
