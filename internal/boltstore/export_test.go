package boltstore

// Seal lets tests write a record with its checksum.
var Seal = seal
