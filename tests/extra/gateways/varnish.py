def run_varnish(blueprint, folder):
    return "Varnish", 0, 0, {}
