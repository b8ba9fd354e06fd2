extern "C" int thruway_shim_version() { return 1; }
