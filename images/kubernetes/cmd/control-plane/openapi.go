package main

import (
	"net/http"
	"sync"

	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/routes"
)

// installOpenAPI publishes the server's OpenAPI documents. Upstream does it while it prepares to run, and builds
// both versions at once; version 2 takes a tenth of the whole start and 20 MiB for good, and today's clients ask for
// version 3. Here version 2 is built for the first client that asks.
func installOpenAPI(server *genericapiserver.GenericAPIServer, config *genericapiserver.Config) {
	server.OpenAPIV3VersionedService = routes.OpenAPI{V3Config: config.OpenAPIV3Config}.
		InstallV3(server.Handler.GoRestfulContainer, server.Handler.NonGoRestfulMux)

	build := sync.OnceValue(func() http.Handler {
		paths := mux.NewPathRecorderMux("openapi-v2")
		routes.OpenAPI{Config: config.OpenAPIConfig}.InstallV2(server.Handler.GoRestfulContainer, paths)
		return paths
	})
	server.Handler.NonGoRestfulMux.HandleFunc("/openapi/v2", func(response http.ResponseWriter, request *http.Request) {
		build().ServeHTTP(response, request)
	})
}
