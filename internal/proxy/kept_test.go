package proxy

import "testing"

func TestPitfallP12AnErrorWithinAnAnswerSaysWhoseFaultItIs(t *testing.T) {
	for text, want := range map[string]int{
		`{"error":{"message":"x","type":"BadRequestError","code":400}}`: 400,
		`{"error":{"message":"x","code": "404" }}`:                      404,
		`data: {"error":{"status":429}}`:                                429,
		`{"error":{"message":"x","code":500}}`:                          502,
		`{"error":{"code":401}}`:                                        502,
		`{"error":{"message":"said {\"code\":400}","code":null}}`:       502,
		`{"error":{"code":40012}}`:                                      502,
		`{"error":"x"}`:                                                 502,
		``:                                                              502,
	} {
		if got := statusInside([]byte(text)); got != want {
			t.Errorf("%s has the status %d, want %d", text, got, want)
		}
	}
}
