package routing

// RaceEnabled tells tests of other packages that the race detector is on.
const RaceEnabled = raceEnabled

// CopiedPlaces is how many places the remembered candidates hold beside those of
// the snapshot, and how many they may.
func CopiedPlaces(r *Router) (held, limit int) { return int(r.cache.copied.Load()), maxCopied }
