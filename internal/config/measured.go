package config

import "time"

// measured are the settings of what is kept and counted of decisions.
func (t *table) measured(c *Config) {
	decimal.add(t, "decision_log.rate", &c.Logged.Rate, 200, 0, 100_000,
		"decisions a second that the decision log has, beyond which as many are drawn by chance; 0: there is no log")
	size.add(t, "decision_log.max_memory_bytes", &c.Logged.MaxMemory, 32<<20, 64<<10, 1<<40,
		"memory for the newest part of the decision log, which it takes as it grows")
	size.add(t, "decision_log.max_bytes", &c.Logged.MaxBytes, 256<<20, 0, 1<<50,
		"size of the files of the decision log, decision-log in the data directory, of which the oldest are removed; 0: it is in memory alone")

	duration.add(t, "effectiveness.objective", &c.Objective.Least, 2*time.Second, time.Millisecond, 24*time.Hour,
		"time to the first token that effectiveness counts as met, however short the prompt; it changes no placement")
	decimal.add(t, "effectiveness.objective_factor", &c.Objective.Factor, 3, 0, 1000,
		"how many times what a prompt takes at a head without other requests counts as met, if that is longer; 0: effectiveness.objective for all prompts")
}
