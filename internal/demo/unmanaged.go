package demo

import (
	"context"
	"fmt"
	"io"
	"strings"

	"headway/internal/mockhead"
)

// RunHeads runs the heads alone until ctx or Options.Duration ends. They register
// nowhere, as engines that know nothing of Headway, and answer as vLLM does.
func RunHeads(ctx context.Context, o Options, stdout io.Writer) error {
	if err := o.Complete(); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	var heads []*mockhead.Head
	defer func() {
		for _, h := range heads {
			h.Close()
		}
	}()
	var list strings.Builder
	for i, u := range newHeads(&o, nil).units { // with ids that a demo beside the same service has not
		u.options.Dies = nil
		h, err := mockhead.Start(ctx, u.options)
		if err != nil {
			return fmt.Errorf("demo: %w", err)
		}
		heads = append(heads, h)
		fmt.Fprintf(&list, "- {id: gpu-%d, endpoint: %q, engine: vllm, region: %s}   # serves %s\n", i+1, h.URL(), u.region, u.model)
	}
	faults := ""
	if o.Faults {
		faults = fmt.Sprintf("# Make gpu-1 go wrong: %s\n", breaking(heads[0].URL()))
	}
	fmt.Fprintf(stdout, "%s# Mock heads that answer as vLLM does and register nowhere. In the service's file:\nheads:\n%s", faults, &list)
	if o.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Duration)
		defer cancel()
	}
	<-ctx.Done()
	return nil
}
