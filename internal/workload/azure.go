package workload

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"headway/internal/strict"
)

// columns are the names that a column has in traces in CSV, in lower case without
// spaces and underscores. Azure's traces of 2023 and 2024 have the first of each.
var columns = []struct {
	shown string
	names []string
}{
	{"TIMESTAMP", []string{"timestamp", "arrivedat", "arrivaltime", "arrivaltimestamp", "starttime", "time"}},
	{"ContextTokens", []string{"contexttokens", "prompttokens", "requesttokens", "inputtokens", "inputlength", "promptlength", "numprefilltokens"}},
	{"GeneratedTokens", []string{"generatedtokens", "outputtokens", "responsetokens", "completiontokens", "outputlength", "generationlength", "numdecodetokens"}},
}

// readAzure reads a CSV file with a time and two lengths. Other columns are ignored.
func readAzure(in *bufio.Reader, left *leftOut) ([]Row, error) {
	lines := csv.NewReader(in)
	lines.ReuseRecord = true
	head, err := lines.Read()
	if err != nil {
		return nil, err
	}
	at, err := findColumns(head)
	if err != nil {
		return nil, err
	}
	var rows []Row
	var first *time.Time
	for {
		fields, err := lines.Read()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return nil, err // it names the line
		}
		if left.tooMany = len(rows) == left.most; left.tooMany {
			return rows, nil
		}
		line, _ := lines.FieldPos(0)
		r, took, err := azureRow(fields, at, left, &first)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		if took {
			rows = append(rows, r)
		}
	}
}

// findColumns finds the columns by their names.
func findColumns(head []string) (at [3]int, err error) {
	plain := strings.NewReplacer(" ", "", "_", "", "-", "")
	for i, c := range columns {
		at[i] = slices.IndexFunc(head, func(name string) bool {
			return slices.Contains(c.names, strings.ToLower(plain.Replace(name)))
		})
		if at[i] < 0 {
			return at, fmt.Errorf("line 1: there is no column %s among %s", c.shown, strict.Quote(strings.Join(head, ",")))
		}
	}
	return at, nil
}

// azureRow reads a row; first is the time of the first one.
func azureRow(fields []string, at [3]int, left *leftOut, first **time.Time) (r Row, took bool, err error) {
	when, err := readTime(fields[at[0]])
	if err != nil {
		return r, false, err
	}
	if *first == nil {
		*first = &when
	}
	since := when.Sub(**first) // saturates at 292 years
	if since.Abs() >= maxSpan/2 {
		return r, false, fmt.Errorf("TIMESTAMP: %s is too far from the first row", strict.Quote(fields[at[0]]))
	}
	var tokens [2]int
	for i, c := range columns[1:] {
		n, err := strconv.ParseFloat(strings.TrimSpace(fields[at[i+1]]), 64)
		if err != nil {
			return r, false, fmt.Errorf("%s: %s is no whole number", c.shown, strict.Quote(fields[at[i+1]]))
		}
		if tokens[i], err = wholeTokens(c.shown, n); err != nil {
			return r, false, err
		}
	}
	r, took = left.row(since, tokens[0], tokens[1])
	return r, took, nil
}

// timeForms are the forms of a time; a fraction may follow the seconds.
var timeForms = []string{"2006-01-02 15:04:05", "2006-01-02 15:04:05Z07:00", "2006-01-02T15:04:05", time.RFC3339}

// readTime reads a date with a time of day, or a number of seconds.
func readTime(text string) (time.Time, error) {
	text = strings.TrimSpace(text)
	for _, form := range timeForms {
		if at, err := time.Parse(form, text); err == nil {
			return at, nil
		}
	}
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && seconds >= 0 && seconds < mostTimestamp/1000 {
		return time.Unix(0, 0).Add(time.Duration(seconds * float64(time.Second))), nil
	}
	return time.Time{}, fmt.Errorf("TIMESTAMP: %s is neither a date with a time nor a number of seconds", strict.Quote(text))
}
