package trail

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"headway/internal/audit"
)

const ocsfVersion = "1.3.0"

const (
	classAccountChange  = 3001
	classAuthentication = 3002
	classAPIActivity    = 6003
)

var classNames = map[int]string{
	classAccountChange: "Account Change", classAuthentication: "Authentication", classAPIActivity: "API Activity",
}

const activityOther = 99

type ocsfEvent struct {
	ActivityID   int            `json:"activity_id"`
	ActivityName string         `json:"activity_name"`
	CategoryUID  int            `json:"category_uid"`
	ClassUID     int            `json:"class_uid"`
	ClassName    string         `json:"class_name"`
	TypeUID      int            `json:"type_uid"`
	Time         int64          `json:"time"` // ms since 1970
	SeverityID   int            `json:"severity_id"`
	StatusID     int            `json:"status_id"`
	StatusDetail string         `json:"status_detail,omitempty"`
	Metadata     ocsfMetadata   `json:"metadata"`
	Actor        ocsfActor      `json:"actor"`
	Src          ocsfEndpoint   `json:"src_endpoint"`
	API          *ocsfAPI       `json:"api,omitempty"`
	Resources    []ocsfResource `json:"resources,omitempty"`
	User         *ocsfUser      `json:"user,omitempty"`
	Service      *ocsfNamed     `json:"service,omitempty"`
	HTTPRequest  *ocsfHTTP      `json:"http_request,omitempty"`
	Unmapped     ocsfUnmapped   `json:"unmapped"`
}

type ocsfMetadata struct {
	Version     string    `json:"version"`
	Product     ocsfNamed `json:"product"`
	UID         string    `json:"uid"`
	Correlation string    `json:"correlation_uid,omitempty"` // the same for an intent and its result
	Sequence    uint64    `json:"sequence"`
	EventCode   string    `json:"event_code"`
	LogName     string    `json:"log_name"`
	Provider    string    `json:"log_provider"` // the node
}

type ocsfNamed struct {
	Name   string `json:"name"`
	Vendor string `json:"vendor_name,omitempty"`
}

type ocsfActor struct {
	User    ocsfUser `json:"user"`
	AppName string   `json:"app_name,omitempty"`
}

type ocsfUser struct {
	Name   string `json:"name"`
	UID    string `json:"uid,omitempty"`
	Type   string `json:"type"`
	TypeID int    `json:"type_id"` // 1 a user, 3 the system, 0 unknown, 99 another
}

type ocsfEndpoint struct {
	IP   string `json:"ip,omitempty"`
	Name string `json:"name,omitempty"`
}

type ocsfAPI struct {
	Operation string    `json:"operation"`
	Service   ocsfNamed `json:"service"`
	Request   *ocsfUID  `json:"request,omitempty"`
}

type ocsfUID struct {
	UID string `json:"uid"`
}

type ocsfResource struct {
	Type   string `json:"type"`
	UID    string `json:"uid,omitempty"`
	Region string `json:"region,omitempty"`
}

type ocsfHTTP struct {
	UserAgent string `json:"user_agent"`
}

// WriteOCSF writes r as one line of JSON in the Open Cybersecurity Schema
// Framework 1.3, hidden characters escaped. Changes of keys are Account Change
// (3001), other auth records Authentication (3002), the rest API Activity
// (6003). Members without a place in the schema are under unmapped.
func WriteOCSF(w io.Writer, r audit.Record) error {
	line, err := json.Marshal(ocsf(&r))
	if err != nil {
		return fmt.Errorf("write record %d as OCSF: %w", r.Seq, err)
	}
	if _, err := w.Write(append(audit.EscapeHidden(line), '\n')); err != nil {
		return fmt.Errorf("write record %d as OCSF: %w", r.Seq, err)
	}
	return nil
}

func ocsf(r *audit.Record) *ocsfEvent {
	class := classOf(r)
	activity, name := activityOf(class, r.Action)
	e := &ocsfEvent{
		ActivityID: activity, ActivityName: name, CategoryUID: class / 1000,
		ClassUID: class, ClassName: classNames[class], TypeUID: class*100 + activity,
		Time: r.Time.UnixMilli(), SeverityID: 1, StatusDetail: r.Reason,
		Metadata: ocsfMetadata{
			Version: ocsfVersion, Product: ocsfNamed{Name: "Headway", Vendor: "Headway"},
			UID: r.ID, Sequence: r.Seq, EventCode: r.Action, LogName: "audit", Provider: r.Node,
		},
		Actor: ocsfActor{User: userOf(r.Actor), AppName: r.Actor.Via},
		Src:   ocsfEndpoint{IP: r.Src.IP},
		Unmapped: ocsfUnmapped{
			Stage: r.Stage, Category: r.Category, Outcome: r.Outcome, ModelType: r.Target.ModelType,
			RequestID: r.RequestID, TraceID: r.TraceID, Before: r.Before, After: r.After, Prev: r.Prev, Hash: r.Hash,
		},
	}
	if intent, ended := strings.CutSuffix(r.ID, audit.ResultSuffix); ended || r.Stage == audit.Intent {
		e.Metadata.Correlation = intent
	}
	switch r.Outcome {
	case audit.Success:
		e.StatusID = 1
	case audit.Failure:
		e.StatusID, e.SeverityID = 2, 3
	case audit.Denied:
		e.StatusID, e.SeverityID = 2, 2
	}
	if e.Src.IP == "" {
		e.Src.Name = r.Node
	}
	if r.Src.UserAgent != "" {
		e.HTTPRequest = &ocsfHTTP{UserAgent: r.Src.UserAgent}
	}
	switch class {
	case classAccountChange:
		e.User = &ocsfUser{Name: r.Target.ID, UID: r.Target.ID, Type: r.Target.Type, TypeID: activityOther}
	case classAuthentication:
		user := userOf(r.Actor)
		e.User, e.Service = &user, &ocsfNamed{Name: "headway"}
	default:
		e.API = &ocsfAPI{Operation: r.Action, Service: ocsfNamed{Name: "headway"}}
		if r.RequestID != "" {
			e.API.Request = &ocsfUID{r.RequestID}
		}
		e.Resources = []ocsfResource{{Type: r.Target.Type, UID: r.Target.ID, Region: r.Target.Region}}
	}
	return e
}

func classOf(r *audit.Record) int {
	switch {
	case r.Target.Type == "key" && strings.HasPrefix(r.Action, "key."):
		return classAccountChange
	case r.Category == audit.Auth:
		return classAuthentication
	}
	return classAPIActivity
}

func activityOf(class int, action string) (id int, name string) {
	_, verb, _ := strings.Cut(action, ".")
	activities := map[string]int{
		"create": 1, "register": 1, "start": 1, "read": 2, "get": 2, "list": 2, "export": 2,
		"put": 3, "patch": 3, "update": 3, "restore": 3, "reload": 3, "set": 3, "rotate": 3,
		"delete": 4, "deregister": 4, "remove": 4, "prune": 4,
	}
	names := []string{1: "Create", 2: "Read", 3: "Update", 4: "Delete"}
	switch class {
	case classAccountChange:
		activities = map[string]int{"create": 1, "enable": 2, "revoke": 5, "disable": 5, "delete": 6}
		names = []string{1: "Create", 2: "Enable", 5: "Disable", 6: "Delete"}
	case classAuthentication:
		return 1, "Logon"
	}
	if id := activities[verb]; id > 0 {
		return id, names[id]
	}
	return activityOther, "Other"
}

func userOf(a audit.Actor) ocsfUser {
	u := ocsfUser{Name: a.ID, UID: a.ID, Type: a.Type, TypeID: 99}
	if u.Name == "" {
		u.Name = a.Type
	}
	switch a.Type {
	case "jwt", "local":
		u.TypeID = 1
	case "system":
		u.TypeID = 3
	case "anonymous":
		u.TypeID = 0
	}
	return u
}

type ocsfUnmapped struct {
	Stage     audit.Stage     `json:"stage"`
	Category  audit.Category  `json:"category"`
	Outcome   audit.Outcome   `json:"outcome,omitempty"`
	ModelType string          `json:"model_type,omitempty"`
	RequestID string          `json:"request_id,omitempty"`
	TraceID   string          `json:"trace_id,omitempty"`
	Before    json.RawMessage `json:"before,omitempty"`
	After     json.RawMessage `json:"after,omitempty"`
	Prev      string          `json:"prev"`
	Hash      string          `json:"hash"`
}
