package httpapi

import (
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"headway/api"
	"headway/internal/fleet"
)

func (s *Server) registerHead(w http.ResponseWriter, r *http.Request) error {
	var body api.Registration
	if err := s.read(w, r, &body); err != nil {
		return err
	}
	spec := fleet.Spec{
		ID: body.ID, Endpoint: body.Endpoint, ModelTypes: body.ModelTypes, Region: body.Region,
		Zone: body.Zone, Version: body.Version, Engine: body.Engine, Labels: body.Labels,
	}
	var faults []fleet.Fault
	switch {
	case body.ModelType != "" && body.ModelTypes != nil:
		faults = append(faults, fleet.Fault{Pointer: "/model_type", Reason: "must not stand beside model_types"})
	case body.ModelType != "":
		spec.ModelTypes = []string{body.ModelType}
	}
	if body.Weight != nil {
		if spec.Weight = *body.Weight; spec.Weight == 0 {
			spec.Weight = -1 // 0 is not the default when somebody says it
		}
	}
	if body.Capacity != nil {
		spec.MaxInFlight = body.Capacity.MaxInFlight
	}
	var first *fleet.StatusReport
	if body.Status != "" {
		status, ok := fleet.ParseStatus(body.Status)
		if !ok {
			faults = append(faults, fleet.Fault{Pointer: "/status", Reason: wantStatus})
		}
		first = &fleet.StatusReport{Status: status, Load: fleet.UnknownLoad()}
	}
	if len(faults) > 0 {
		return s.fleet.Check(spec, faults)
	}
	done, err := s.fleet.Register(r.Context(), spec, first)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if done.Created {
		status = http.StatusCreated
		w.Header().Set("Location", "/api/v1/heads/"+url.PathEscape(spec.ID))
	}
	return writeJSON(w, status, api.RegistrationAnswer{Head: toHead(&done.View), Lease: toLease(done.Lease)})
}

const wantStatus = "want active, degraded, draining or offline"

// read decodes the request's body into v.
func (s *Server) read(w http.ResponseWriter, r *http.Request, v any) error {
	buf, err := s.readBody(w, r)
	if err != nil {
		return err
	}
	defer buf.free()
	return decode(buf.b, v)
}

func (s *Server) reportStatus(w http.ResponseWriter, r *http.Request) error {
	var body api.StatusReport
	if err := s.read(w, r, &body); err != nil {
		return err
	}
	report := fleet.StatusReport{Epoch: body.Epoch, Sequence: body.Sequence, Load: toLoad(body.Load)}
	if body.Status != "" {
		var ok bool
		if report.Status, ok = fleet.ParseStatus(body.Status); !ok {
			return &fleet.InvalidError{Faults: []fleet.Fault{{Pointer: "/status", Reason: wantStatus}}}
		}
	}
	if body.Epoch == 0 {
		return &fleet.InvalidError{Faults: []fleet.Fault{{Pointer: "/epoch", Reason: "is required: the epoch of the head's lease"}}}
	}
	lease, err := s.fleet.Report(r.PathValue("id"), report)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, api.StatusAnswer{Lease: toLease(lease)})
}

// toLoad turns what a head left out into what is not known. A negative number
// that stands for unknown inside must not come from outside.
func toLoad(l *api.Load) fleet.Load {
	load := fleet.UnknownLoad()
	if l == nil {
		return load
	}
	for to, from := range map[*int64]*int64{
		&load.InFlight: l.InFlight, &load.Queued: l.Queued,
		&load.PendingPromptTokens: l.PendingPromptTokens, &load.KVCapacityTokens: l.KVCapacityTokens,
	} {
		if from != nil {
			if *to = *from; *from == fleet.Unknown {
				*to = math.MinInt64
			}
		}
	}
	for to, from := range map[*float64]*float64{
		&load.KVCacheUsage: l.KVCacheUsage, &load.Utilization: l.Utilization, &load.TokensPerSecond: l.TokensPerSecond,
	} {
		if from != nil {
			*to = *from
		}
	}
	return load
}

func (s *Server) patchHead(w http.ResponseWriter, r *http.Request) error {
	var body api.HeadPatch
	if err := s.read(w, r, &body); err != nil {
		return err
	}
	patch := fleet.Patch{Weight: body.Weight, Labels: body.Labels}
	if body.AdminState != nil {
		state, ok := fleet.ParseAdminState(*body.AdminState)
		if !ok {
			return &fleet.InvalidError{Faults: []fleet.Fault{{Pointer: "/admin_state", Reason: "want enabled, draining or maintenance"}}}
		}
		patch.State = &state
	}
	if body == (api.HeadPatch{}) {
		return &fleet.InvalidError{Faults: []fleet.Fault{{Pointer: "", Reason: "changes nothing; want admin_state, weight or labels"}}}
	}
	view, err := s.fleet.Patch(r.Context(), r.PathValue("id"), patch)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, toHead(&view))
}

func (s *Server) deleteHead(w http.ResponseWriter, r *http.Request) error {
	if err := s.fleet.Deregister(r.Context(), r.PathValue("id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) getHead(w http.ResponseWriter, r *http.Request) error {
	view, err := s.fleet.Head(r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, toHead(&view))
}

func (s *Server) listHeads(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "model_type", "region", "status", "limit", "cursor")
	if err != nil {
		return err
	}
	limit, err := q.limit()
	if err != nil {
		return err
	}
	if st := q["status"]; st != "" && !slices.Contains(fleet.Statuses(), st) {
		return q.invalid("status", "want one of "+strings.Join(fleet.Statuses(), ", "))
	}
	views, next := s.fleet.List(fleet.Query{
		ModelType: q["model_type"], Region: q["region"], Status: q["status"], Limit: limit, Cursor: q["cursor"],
	})
	page := api.List[api.Head]{Data: make([]api.Head, 0, len(views)), NextCursor: next}
	for i := range views {
		page.Data = append(page.Data, toHead(&views[i]))
	}
	return writeJSON(w, http.StatusOK, page)
}

// parameters are the query parameters of a list.
type parameters map[string]string

// maxParameter is the longest value of a query parameter.
const maxParameter = 200

// query reads the known parameters of a request and refuses others.
func query(r *http.Request, known ...string) (parameters, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, &problem{status: http.StatusBadRequest, code: api.CodeInvalid, detail: "The query cannot be read."}
	}
	q := parameters{}
	for name, list := range values {
		switch {
		case !slices.Contains(known, name):
			return nil, q.invalid(name, "is not known; known are "+strings.Join(known, ", "))
		case len(list) > 1:
			return nil, q.invalid(name, "is there twice")
		case len(list[0]) > maxParameter:
			return nil, q.invalid(name, "is too long")
		}
		q[name] = list[0]
	}
	return q, nil
}

func (parameters) invalid(name, reason string) error {
	name = clip(name)
	return &problem{
		status: http.StatusUnprocessableEntity, code: api.CodeInvalid,
		detail: "Parameter " + name + " " + reason + ".",
		faults: []api.Fault{{Parameter: name, Reason: reason}},
	}
}

// Bounds of a page.
const (
	defaultPage = 100
	maxPage     = 1000
)

func (q parameters) limit() (int, error) {
	text := q["limit"]
	if text == "" {
		return defaultPage, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxPage {
		return 0, q.invalid("limit", "must be 1 to "+strconv.Itoa(maxPage))
	}
	return n, nil
}

func toLease(l fleet.Lease) api.Lease {
	return api.Lease{
		Epoch: l.Epoch, TTLSeconds: seconds(l.TTL), HeartbeatIntervalSeconds: seconds(l.HeartbeatInterval),
		ExpiresAt: stamp(l.ExpiresAt),
	}
}

// seconds keeps milliseconds.
func seconds(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond)) / float64(time.Second)
}

func millis(d time.Duration) float64 { return math.Round(float64(d)/1e4) / 100 }

func stamp(t time.Time) time.Time { return t.UTC().Round(time.Millisecond) }

func stampPointer(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = stamp(t)
	return &t
}

func toHead(v *fleet.View) api.Head {
	h := v.Head
	head := api.Head{
		ID: h.ID, Endpoint: h.Endpoint, ModelTypes: h.ModelTypes, Region: h.Region, Zone: h.Zone,
		Version: h.Version, Engine: h.Engine, Weight: h.Weight, Labels: h.Labels, Epoch: h.Epoch,
		Status: h.Status.String(), AdminState: h.Admin.String(), Routable: h.Routable(),
		Health:   api.Health{State: h.Health.String(), Reason: v.HealthReason, Until: stampPointer(v.HealthUntil)},
		InFlight: v.InFlight, Lease: toLease(v.Lease),
		RegisteredAt: stamp(v.Record.RegisteredAt), UpdatedAt: stamp(v.Record.UpdatedAt),
	}
	if h.MaxInFlight > 0 {
		head.Capacity = &api.Capacity{MaxInFlight: h.MaxInFlight}
	}
	if report := v.Report; report != nil {
		head.Load = &api.ReportedLoad{AgeMs: millis(v.ReportAge), Load: api.Load{
			InFlight: known(report.Load.InFlight), Queued: known(report.Queued),
			PendingPromptTokens: known(report.PendingPromptTokens), KVCapacityTokens: known(report.KVCapacityTokens),
			KVCacheUsage: number(report.KVCacheUsage), Utilization: number(report.Utilization),
			TokensPerSecond: number(report.TokensPerSecond),
		}}
	}
	return head
}

func known(v int64) *int64 {
	if v == fleet.Unknown {
		return nil
	}
	return &v
}

func number(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}
