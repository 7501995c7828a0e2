vcl 4.1;

# Varnish (or any CDN) in front of what everyone may read: the keys and the metadata. Countersign's Cache-Control rules,
# and it never reaches past the next change of keys.

backend countersign {
    .host = "127.0.0.1";
    .port = "8080";
    .connect_timeout = 1s;
    .first_byte_timeout = 2s;
}

sub vcl_recv {
    if (req.url !~ "^/\.well-known/") {
        return (pass);
    }
    unset req.http.Cookie;
}

sub vcl_backend_response {
    # Beyond max-age, the old copy is handed out while the new one is fetched, or while Countersign does not answer,
    # but no longer than this. It adds to the time that a withdrawn key lives.
    set beresp.grace = 10s;
}
