"""Every recipe that the suite can run, with the promises of its page."""

import subprocess

from gateway import Promise, Recipe

EVERYWHERE = {"127.0.0.1:8000": "127.0.0.1:{port}", "127.0.0.1:3000": "127.0.0.1:{upstream}"}
SERVICE = {"127.0.0.1:8080": "127.0.0.1:{service}"}
SERVED_ELSEWHERE = {"http://localhost:8080": "{issuer}"}
# Introspection in nginx: from the credentials file of the recipe.
NGINX_CREDENTIALS = {"Z2F0ZXdheTpTRUNSRVQ=": "{basic}"}
IN_FOLDER = {"/etc/nginx/countersign": "{folder}", "/run/nginx-countersign": "{folder}/cache"}
WITHOUT_ROLES = frozenset({"user", "preferred-username", "client-id", "scopes", "session"})

NGINX = """
worker_processes 2;
pid {folder}/nginx.pid;
error_log stderr warn;
%s
events {}
http {
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/recipe.conf;
}
"""
MODULES = "load_module /usr/lib/nginx/modules/"
NGINX_COMMAND = ["nginx", "-e", "stderr", "-c", "{folder}/nginx.conf", "-g", "daemon off;"]

APACHE = """
ServerRoot {folder}
ServerName localhost
PidFile {folder}/apache.pid
DefaultRuntimeDir {folder}
Mutex file:{folder}
ErrorLog {folder}/apache2.log
LogLevel warn
Listen 127.0.0.1:{port}
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authn_core_module /usr/lib/apache2/modules/mod_authn_core.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule authz_user_module /usr/lib/apache2/modules/mod_authz_user.so
LoadModule env_module /usr/lib/apache2/modules/mod_env.so
LoadModule setenvif_module /usr/lib/apache2/modules/mod_setenvif.so
LoadModule headers_module /usr/lib/apache2/modules/mod_headers.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
%s
Include {folder}/recipe.conf
"""
APACHE_COMMAND = ["apache2", "-f", "{folder}/apache.conf", "-D", "FOREGROUND"]
APACHE_FILES = {"identity-headers.conf": "identity-headers.conf"}
APACHE_REPLACE = {"*:8000": "127.0.0.1:{port}", "127.0.0.1:3000": "127.0.0.1:{upstream}", "/etc/apache2/countersign": "{folder}"}
MOD_OAUTH2 = APACHE % "LoadModule oauth2_module /usr/lib/apache2/modules/mod_oauth2.so"
MOD_AUTH_OPENIDC = APACHE % "LoadModule auth_openidc_module /usr/lib/apache2/modules/mod_auth_openidc.so"
HTTPS = {"https://localhost:8080": "{issuer}", "/etc/ssl/certs/ca-certificates.crt": "{authority}", "PASSPHRASE": "{secret}"}
# cjose, which both Apache modules use, has no EdDSA.
CJOSE = frozenset({"ES256", "RS256", "PS256"})
# Apache's modules answer 401 when the service is unreachable.
REFUSES = frozenset({401, 500, 502, 503, 504})
OFFLINE = frozenset({200})


def sync_haproxy_keys(bench):
    """The cron job: writes the keys for HAProxy, and reloads it when they changed."""
    folder = bench.names["folder"]
    jwks = f"{bench.service.issuer}/.well-known/jwks.json"
    reload_command = ["kill", "-USR2", str(bench.gateway.child.pid)] if bench.gateway else []
    script = f"{folder}/sync-keys"
    done = subprocess.run(
        ["python3", script, jwks, f"{folder}/keys", f"{folder}/haproxy.cfg", *reload_command],
        capture_output=True, text=True, env={"PATH": "/usr/sbin:/usr/bin:/bin"}, check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"sync-keys: {done.stderr}")


RECIPES = [
    Recipe(
        name="nginx: auth_request to forward-auth, proxy_cache", folder="nginx",
        files={"forward-auth.conf": "recipe.conf"}, around={"nginx.conf": NGINX % ""},
        replace={**EVERYWHERE, **SERVICE, "/run/nginx-countersign": "{folder}/cache"}, command=NGINX_COMMAND,
        promise=Promise(revoked_for=6),
    ),
    Recipe(
        # `Vary` alone keeps the answers apart: the default key is the address of the subrequest, the same for every token.
        name="nginx: auth_request to forward-auth, default cache key", folder="nginx",
        files={"forward-auth.conf": "recipe.conf"}, around={"nginx.conf": NGINX % ""},
        replace={**EVERYWHERE, **SERVICE, "/run/nginx-countersign": "{folder}/cache",
                 "        proxy_cache_key $http_authorization;\n": ""},
        command=NGINX_COMMAND, promise=Promise(revoked_for=6),
    ),
    Recipe(
        name="nginx: njs calls introspection, proxy_cache", folder="nginx",
        files={"njs-introspection.conf": "recipe.conf", "introspection.js": "introspection.js",
               "gateway-credentials.conf": "gateway-credentials.conf"},
        around={"nginx.conf": NGINX % f"{MODULES}ngx_http_js_module.so;"},
        replace={**EVERYWHERE, **SERVICE, **IN_FOLDER, **NGINX_CREDENTIALS}, command=NGINX_COMMAND,
        promise=Promise(revoked_for=6),
    ),
    Recipe(
        name="nginx: Lua calls introspection, shared memory", folder="nginx",
        files={"lua-introspection.conf": "recipe.conf", "introspection.lua": "introspection.lua",
               "gateway-credentials.conf": "gateway-credentials.conf"},
        around={"nginx.conf": NGINX % f"{MODULES}ndk_http_module.so;\n{MODULES}ngx_http_lua_module.so;"},
        replace={**EVERYWHERE, **SERVICE, "/etc/nginx/countersign": "{folder}", **NGINX_CREDENTIALS}, command=NGINX_COMMAND,
        promise=Promise(revoked_for=5),
    ),
    Recipe(
        name="HAProxy: Lua asks forward-auth", folder="haproxy",
        files={"forward-auth.cfg": "haproxy.cfg", "countersign.lua": "countersign.lua"},
        replace={**EVERYWHERE, **SERVICE, "/etc/haproxy/countersign.lua": "{folder}/countersign.lua"},
        command=["haproxy", "-db", "-f", "{folder}/haproxy.cfg"],
        promise=Promise(revoked_for=0, calls_of_20=(20, 20), refused_calls_of_20=(20, 20)),
    ),
    Recipe(
        name="HAProxy: jwt_verify with the published keys", folder="haproxy", offline=True,
        files={"jwks.cfg": "haproxy.cfg", "sync-keys": "sync-keys"}, around={"keys/README": ""},
        replace={**EVERYWHERE, **SERVED_ELSEWHERE, "/etc/haproxy/keys": "{folder}/keys"},
        command=["haproxy", "-W", "-db", "-f", "{folder}/haproxy.cfg"], sync=sync_haproxy_keys,
        promise=Promise(revoked_for=None, beyond_expiry=1, calls_of_20=(0, 0), refused_calls_of_20=(0, 0), outage=OFFLINE,
                        algorithms=frozenset({"ES256", "RS256"}), takes_typ_jwt=False, identity=WITHOUT_ROLES),
    ),
    Recipe(
        name="Apache: mod_oauth2 calls introspection", folder="apache",
        files={"mod_oauth2-introspection.conf": "recipe.conf", **APACHE_FILES}, around={"apache.conf": MOD_OAUTH2},
        replace={**APACHE_REPLACE, **SERVICE, **SERVED_ELSEWHERE, "SECRET": "{secret}"}, command=APACHE_COMMAND,
        promise=Promise(revoked_for=6, beyond_expiry=6, refused_calls_of_20=(20, 20), outage=REFUSES, gives_up_after=22,
                        identity=WITHOUT_ROLES),
    ),
    Recipe(
        name="Apache: mod_oauth2 with the published keys", folder="apache", offline=True,
        files={"mod_oauth2-jwks.conf": "recipe.conf", **APACHE_FILES}, around={"apache.conf": MOD_OAUTH2},
        replace={**APACHE_REPLACE, **SERVICE, **SERVED_ELSEWHERE}, command=APACHE_COMMAND,
        promise=Promise(revoked_for=None, beyond_expiry=6, calls_of_20=(0, 0), refused_calls_of_20=(0, 20), outage=OFFLINE,
                        gives_up_after=22, algorithms=CJOSE, identity=WITHOUT_ROLES),
    ),
    Recipe(
        name="Apache: mod_auth_openidc calls introspection", folder="apache", tls=True,
        files={"mod_auth_openidc-introspection.conf": "recipe.conf", **APACHE_FILES}, around={"apache.conf": MOD_AUTH_OPENIDC},
        replace={**APACHE_REPLACE, **HTTPS, "SECRET": "{secret}"}, command=APACHE_COMMAND,
        promise=Promise(revoked_for=6, refused_calls_of_20=(20, 20), outage=REFUSES, identity=WITHOUT_ROLES),
    ),
    Recipe(
        name="Apache: mod_auth_openidc with the published keys", folder="apache", tls=True, offline=True,
        files={"mod_auth_openidc-jwks.conf": "recipe.conf", **APACHE_FILES}, around={"apache.conf": MOD_AUTH_OPENIDC},
        replace={**APACHE_REPLACE, **HTTPS}, command=APACHE_COMMAND,
        promise=Promise(revoked_for=None, beyond_expiry=1, calls_of_20=(0, 0), refused_calls_of_20=(0, 20), outage=OFFLINE,
                        demands_expiry=False, algorithms=CJOSE, identity=WITHOUT_ROLES),
    ),
    Recipe(
        name="Envoy: ext_authz over HTTP", folder="envoy", files={"ext-authz.yaml": "envoy.yaml"},
        replace={"port_value: 8000": "port_value: {port}", "port_value: 3000": "port_value: {upstream}",
                 "port_value: 8080": "port_value: {service}"},
        command=["{envoy}", "-c", "{folder}/envoy.yaml", "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"],
        promise=Promise(revoked_for=0, calls_of_20=(20, 20), refused_calls_of_20=(20, 20)),
    ),
    Recipe(
        name="Envoy: ext_authz over gRPC", folder="envoy", files={"ext-authz-grpc.yaml": "envoy.yaml"},
        replace={"port_value: 8000": "port_value: {port}", "port_value: 3000": "port_value: {upstream}",
                 "port_value: 9191": "port_value: {grpc}"},
        command=["{envoy}", "-c", "{folder}/envoy.yaml", "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"],
        grpc=True, promise=Promise(revoked_for=0, calls_of_20=(20, 20), refused_calls_of_20=(20, 20)),
    ),
    Recipe(
        name="Envoy: jwt_authn with the published keys", folder="envoy", offline=True, files={"jwt-authn.yaml": "envoy.yaml"},
        replace={"port_value: 8000": "port_value: {port}", "port_value: 3000": "port_value: {upstream}",
                 "port_value: 8080": "port_value: {service}", "cache_duration: 300s": "cache_duration: 2s", **SERVED_ELSEWHERE},
        command=["{envoy}", "-c", "{folder}/envoy.yaml", "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"],
        promise=Promise(revoked_for=None, beyond_expiry=2, calls_of_20=(0, 2), refused_calls_of_20=(0, 2), outage=OFFLINE,
                        identity=WITHOUT_ROLES),
    ),
    Recipe(
        name="Caddy: forward_auth", folder="caddy", files={"Caddyfile": "Caddyfile"},
        replace={"http://:8000": "http://:{port}", "127.0.0.1:3000": "127.0.0.1:{upstream}", **SERVICE},
        command=["caddy", "run", "--adapter", "caddyfile", "--config", "{folder}/Caddyfile"],
        environment={"XDG_DATA_HOME": "{folder}", "XDG_CONFIG_HOME": "{folder}"},
        promise=Promise(revoked_for=0, calls_of_20=(20, 20), refused_calls_of_20=(20, 20)),
    ),
]
