// Package fleet keeps the heads of a fleet: which are registered, which still
// hold their lease, what load they report and how many requests are in flight
// at each.
//
// [Registry] is the one writer. Readers take an immutable [Snapshot] and never
// wait for a writer; the numbers that change with every request and every
// report live in each head's [Live], so that neither copies anything.
package fleet
