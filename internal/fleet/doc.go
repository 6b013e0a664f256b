// Package fleet is what is known of the heads of a fleet: what they say of
// themselves, whether they take requests, what load they report and how many
// requests are in flight at each.
//
// Readers take an immutable [Snapshot] and never wait for the writer, which is
// the package registry. The numbers that change with every request and every
// report live in each head's [Live], so that neither copies anything.
package fleet
