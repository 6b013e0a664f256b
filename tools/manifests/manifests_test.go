// Package manifests_test checks what deploy/kubernetes asks of a cluster, and
// that the program takes the configuration files that are passed on.
package manifests_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const (
	root       = "../.."
	dir        = root + "/deploy/kubernetes"
	monitoring = dir + "/monitoring"
)

// build makes the objects of a directory as kubectl apply -k does, by kind and
// name.
func build(t *testing.T, files filesys.FileSystem, dir string) map[string][]byte {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(files, dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, r := range built.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		all[r.GetApiVersion()+" "+r.GetKind()+" "+r.GetName()] = text
	}
	return all
}

// load decodes one object; a field that its schema does not know is a failure.
func load[T any](t *testing.T, dir, name string) *T {
	t.Helper()
	text, there := build(t, filesys.MakeFsOnDisk(), dir)[name]
	if !there {
		t.Fatalf("%s makes no %s", dir, name)
	}
	into := new(T)
	if err := strict(text, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return into
}

// strict refuses unknown and repeated fields and other cases of known ones, as
// the API server does with fieldValidation=Strict.
func strict(text []byte, into any) error {
	asJSON, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return err
	}
	faults, err := json.UnmarshalStrict(asJSON, into)
	return errors.Join(append(faults, err)...)
}

// schemas are the types of all objects, by directory, API and kind.
var schemas = map[string]map[string]func() any{
	dir: {
		"apps/v1 StatefulSet headway":                func() any { return new(appsv1.StatefulSet) },
		"networking.k8s.io/v1 NetworkPolicy headway": func() any { return new(networkingv1.NetworkPolicy) },
		"v1 ConfigMap headway":                       func() any { return new(corev1.ConfigMap) },
		"v1 Service headway":                         func() any { return new(corev1.Service) },
	},
	monitoring: {
		"monitoring.coreos.com/v1 PrometheusRule headway": func() any { return new(monitoringv1.PrometheusRule) },
		"monitoring.coreos.com/v1 ServiceMonitor headway": func() any { return new(monitoringv1.ServiceMonitor) },
		"v1 ConfigMap routing-service":                    func() any { return new(corev1.ConfigMap) },
		"v1 ConfigMap routing-service-enhanced":           func() any { return new(corev1.ConfigMap) },
	},
}

// Each file is named by its kustomization, and has only what the schema of its
// kind has.
func TestEveryFileFitsItsSchema(t *testing.T) {
	for dir, kinds := range schemas {
		built := build(t, filesys.MakeFsOnDisk(), dir)
		if got, want := slices.Sorted(maps.Keys(built)), slices.Sorted(maps.Keys(kinds)); !slices.Equal(got, want) {
			t.Errorf("%s makes %q, want %q", dir, got, want)
		}
		files, err := filepath.Glob(dir + "/*.yaml")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, document := range bytes.Split(text, []byte("\n---\n")) {
				check(t, file, document, built, kinds)
			}
		}
	}
}

func check(t *testing.T, file string, text []byte, built map[string][]byte, kinds map[string]func() any) {
	t.Helper()
	if filepath.Base(file) == "kustomization.yaml" {
		if err := strict(text, new(types.Kustomization)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		return
	}
	var meta struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
	}
	if err := yaml.Unmarshal(text, &meta); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	name := meta.APIVersion + " " + meta.Kind + " " + meta.Name
	if built[name] == nil || kinds[name] == nil {
		t.Errorf("%s has %s, which no kustomization names or no test knows", file, name)
		return
	}
	if err := strict(text, kinds[name]()); err != nil {
		t.Errorf("%s: %v", file, err)
	}
}

// The overlay that the kustomization describes sets the image.
func TestAnOverlaySetsTheImage(t *testing.T) {
	files := filesys.MakeFsInMemory()
	names, err := filepath.Glob(dir + "/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err == nil {
			err = files.WriteFile("/base/"+filepath.Base(name), text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	kustomization, err := os.ReadFile(dir + "/kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var overlay []string
	for line := range strings.Lines(string(kustomization)) {
		if text, ok := strings.CutPrefix(line, "#   "); ok {
			overlay = append(overlay, text)
		}
	}
	text := strings.Replace(strings.Join(overlay, ""), "github.com/NAME/headway/deploy/kubernetes", "../base", 1)
	if err := files.WriteFile("/overlay/kustomization.yaml", []byte(text)); err != nil {
		t.Fatal(err)
	}
	var set appsv1.StatefulSet
	if err := strict(build(t, files, "/overlay")["apps/v1 StatefulSet headway"], &set); err != nil {
		t.Fatal(err)
	}
	if image := set.Spec.Template.Spec.Containers[0].Image; image != "YOUR/headway:0.2.0" {
		t.Errorf("the overlay makes the image %q", image)
	}
}

// What scrapes finds the port and the certificate, and the rules their job.
func TestTheServiceMonitorFitsTheService(t *testing.T) {
	scraped := load[monitoringv1.ServiceMonitor](t, monitoring, "monitoring.coreos.com/v1 ServiceMonitor headway").Spec
	svc := service(t)
	selector, err := metav1.LabelSelectorAsSelector(&scraped.Selector)
	if err != nil || !selector.Matches(labels.Set(svc.Labels)) {
		t.Errorf("it selects %v (%v), the Service has %v", selector, err, svc.Labels)
	}
	endpoint := scraped.Endpoints[0]
	if len(scraped.Endpoints) != 1 || endpoint.Port != svc.Spec.Ports[0].Name || endpoint.TLSConfig.CA.Secret == nil {
		t.Errorf("it scrapes %+v", scraped.Endpoints)
	}
	secret := ""
	for _, v := range statefulSet(t).Spec.Template.Spec.Volumes {
		if v.Secret != nil {
			secret = v.Secret.SecretName
		}
	}
	if ca := endpoint.TLSConfig.CA.Secret; ca != nil && ca.Name != secret {
		t.Errorf("its authority is in %q, the pod's in %q", ca.Name, secret)
	}
}

func statefulSet(t *testing.T) *appsv1.StatefulSet {
	return load[appsv1.StatefulSet](t, dir, "apps/v1 StatefulSet headway")
}

func configMap(t *testing.T) *corev1.ConfigMap {
	return load[corev1.ConfigMap](t, dir, "v1 ConfigMap headway")
}

func service(t *testing.T) *corev1.Service {
	return load[corev1.Service](t, dir, "v1 Service headway")
}

func networkPolicy(t *testing.T) *networkingv1.NetworkPolicy {
	return load[networkingv1.NetworkPolicy](t, dir, "networking.k8s.io/v1 NetworkPolicy headway")
}

func TestUnknownFieldIsRefused(t *testing.T) {
	text, err := os.ReadFile(dir + "/statefulset.yaml")
	if err != nil {
		t.Fatal(err)
	}
	wrong := bytes.Replace(text, []byte("readOnlyRootFilesystem"), []byte("readOnlyRootFileSystem"), 1)
	if bytes.Equal(text, wrong) {
		t.Fatal("nothing was replaced")
	}
	if err := strict(wrong, new(appsv1.StatefulSet)); err == nil {
		t.Error("a misspelt field was taken, so these tests would find nothing")
	}
}

func TestNoNamespaceIsFixed(t *testing.T) {
	for name, meta := range map[string]metav1.ObjectMeta{
		"statefulset": statefulSet(t).ObjectMeta, "configmap": configMap(t).ObjectMeta,
		"service": service(t).ObjectMeta, "networkpolicy": networkPolicy(t).ObjectMeta,
	} {
		if meta.Namespace != "" || meta.Name != "headway" {
			t.Errorf("%s is %s/%s, want headway without a namespace", name, meta.Namespace, meta.Name)
		}
	}
}

func TestSelectorsMeetThePod(t *testing.T) {
	set := statefulSet(t)
	pod := labels.Set(set.Spec.Template.Labels)
	for name, selector := range map[string]map[string]string{
		"statefulset":   set.Spec.Selector.MatchLabels,
		"service":       service(t).Spec.Selector,
		"networkpolicy": networkPolicy(t).Spec.PodSelector.MatchLabels,
	} {
		if len(selector) == 0 || !labels.SelectorFromSet(selector).Matches(pod) {
			t.Errorf("%s selects %v, the pod has %v", name, selector, pod)
		}
	}
	if set.Spec.ServiceName != service(t).Name {
		t.Errorf("serviceName is %q", set.Spec.ServiceName)
	}
}

func TestOneReplicaWithAVolumeOfItsOwn(t *testing.T) {
	set := statefulSet(t)
	if set.Spec.Replicas == nil || *set.Spec.Replicas != 1 {
		t.Error("the state has one writer, so there must be one replica")
	}
	mounted := make(map[string]string)
	for _, m := range set.Spec.Template.Spec.Containers[0].VolumeMounts {
		mounted[m.Name] = m.MountPath
	}
	if len(set.Spec.VolumeClaimTemplates) != 1 || mounted[set.Spec.VolumeClaimTemplates[0].Name] != "/var/lib/headway" {
		t.Error("the data directory is not on the claimed volume")
	}
	for _, v := range set.Spec.Template.Spec.Volumes {
		if mounted[v.Name] == "" {
			t.Errorf("volume %s is not mounted", v.Name)
		}
	}
}

func TestPodHasNoPrivileges(t *testing.T) {
	pod := statefulSet(t).Spec.Template.Spec
	c := pod.Containers[0].SecurityContext
	for what, ok := range map[string]bool{
		"runAsNonRoot":             *pod.SecurityContext.RunAsNonRoot,
		"a user that is not root":  *pod.SecurityContext.RunAsUser > 0,
		"seccomp":                  pod.SecurityContext.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault,
		"no escalation":            !*c.AllowPrivilegeEscalation,
		"a read-only root":         *c.ReadOnlyRootFilesystem,
		"all capabilities dropped": len(c.Capabilities.Drop) == 1 && c.Capabilities.Drop[0] == "ALL" && len(c.Capabilities.Add) == 0,
		"no token of the cluster":  !*pod.AutomountServiceAccountToken,
		"no namespace of the host": !pod.HostNetwork && !pod.HostPID && !pod.HostIPC,
	} {
		if !ok {
			t.Errorf("the pod does not have: %s", what)
		}
	}
}

func TestProbesAndPortsAreThoseOfTheService(t *testing.T) {
	pod := statefulSet(t).Spec.Template.Spec
	c := pod.Containers[0]
	for want, probes := range map[string][]*corev1.Probe{
		"/livez":  {c.StartupProbe, c.LivenessProbe},
		"/readyz": {c.ReadinessProbe},
	} {
		for _, p := range probes {
			if get := p.HTTPGet; get.Path != want || get.Scheme != corev1.URISchemeHTTPS || get.Port.StrVal != c.Ports[0].Name {
				t.Errorf("probe %v, want %s with TLS on port %s", get, want, c.Ports[0].Name)
			}
			// One answer that was late is no outage.
			if p.FailureThreshold < 3 {
				t.Errorf("the probe of %s allows %d misses; want at least 3", want, p.FailureThreshold)
			}
		}
	}
	if target := service(t).Spec.Ports[0].TargetPort.StrVal; target != c.Ports[0].Name {
		t.Errorf("the service goes to port %q", target)
	}
	if g := pod.TerminationGracePeriodSeconds; g == nil || *g != 45 {
		t.Error("terminationGracePeriodSeconds is not 45")
	}
	if !strings.Contains(configMap(t).Data["headway.yaml"], "listen: 0.0.0.0:8080\n") || c.Ports[0].ContainerPort != 8080 {
		t.Error("the container's port is not the one that is listened on")
	}
}

// Without an address of its own for each peer the policy would let all in.
func TestNetworkPolicyClosesBothWays(t *testing.T) {
	p := networkPolicy(t).Spec
	if len(p.PolicyTypes) != 2 {
		t.Errorf("policyTypes %v, want Ingress and Egress", p.PolicyTypes)
	}
	for _, rule := range p.Ingress {
		if len(rule.From) == 0 || len(rule.Ports) == 0 {
			t.Error("an ingress rule lets everybody or every port in")
		}
	}
	for _, rule := range p.Egress {
		if len(rule.To) == 0 {
			t.Error("an egress rule lets everything out")
		}
	}
}

// The program refuses keys that it does not know, so this finds those that were
// renamed.
func TestProgramTakesTheConfigurations(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	program := filepath.Join(t.TempDir(), "headway")
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", program, "./cmd/headway")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	packaged, err := os.ReadFile(root + "/deploy/headway.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"deploy/headway.yaml": string(packaged),
		"the ConfigMap":       configMap(t).Data["headway.yaml"],
	} {
		file := filepath.Join(t.TempDir(), "headway.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(ctx, program, "config", "print", "--config", file).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
