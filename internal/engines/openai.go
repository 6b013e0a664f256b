package engines

// openai is any other server of that API. It says nothing of its load.
var openai = Engine{Name: "openai", health: "/v1/models", models: listOf, serves: []string{"GET /v1/models"}}
