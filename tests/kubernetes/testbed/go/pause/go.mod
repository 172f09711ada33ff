module headrace.testbed/pause

go 1.26.0
