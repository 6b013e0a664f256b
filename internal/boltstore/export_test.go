package boltstore

// Seal lets tests write a record with its checksum, and CheckPages check a file
// that another program wrote.
var (
	Seal       = seal
	CheckPages = checkPages
)
