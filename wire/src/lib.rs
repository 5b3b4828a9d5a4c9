//! Sans-io codecs of the client transports: WebSocket, SSE, NDJSON, chunked bodies.
