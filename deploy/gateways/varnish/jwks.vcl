vcl 4.1;

# Varnish (or any CDN) in front of the public documents: the keys and the metadata. Countersign's Cache-Control applies,
# and it never extends past the next change of keys.

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
    # Beyond max-age, the old copy is served while the new one is fetched or while Countersign does not answer, but no
    # longer than this. It extends the time for which a withdrawn key is accepted.
    set beresp.grace = 10s;
}
