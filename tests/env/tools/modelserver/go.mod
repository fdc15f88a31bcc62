module pointsman.dev/tools/modelserver

go 1.26.0
