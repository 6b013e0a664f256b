"""Serves a model with llama.cpp's own HTTP server: llamacpp_server.py FILE PORT."""

import signal
import sys

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path, params.port = sys.argv[1], int(sys.argv[2])
params.model_alias = {"tiny"}
params.n_ctx, params.n_parallel = 65536, 2
params.cpuparams.n_threads = 1
params.endpoint_metrics = True
server = xllamacpp.Server(params)
signal.sigwait({signal.SIGTERM, signal.SIGINT})
