package routing

// RaceEnabled tells tests of other packages that the race detector is on.
const RaceEnabled = raceEnabled
