"""The ext_authz door: a mesh asks, Envoy carries out. Optional; the server needs the extra `envoy`."""
