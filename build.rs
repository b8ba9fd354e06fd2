//! Builds the C++ shim of `autograd` and writes libtorch's folder into every binary's RUNPATH.
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=src/autograd/shim.cpp");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    // absent in a work tree or an unpacked archive, where naming it would rebuild every time
    if std::path::Path::new(".git/HEAD").exists() {
        println!("cargo:rerun-if-changed=.git/HEAD");
    }
    let lib = PathBuf::from(
        std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys tells where libtorch is; run `make setup` first"),
    );
    let include = std::env::var("LIBTORCH_INCLUDE")
        .map(|d| PathBuf::from(d).join("include"))
        .unwrap_or_else(|_| lib.parent().expect("lib has a parent").join("include"));
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .pic(true)
        .warnings(false)
        .opt_level(1)
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .file("src/autograd/shim.cpp")
        .compile("thruway_shim");
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    // NVRTC lies in the CUDA wheel beside libtorch.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}/../../nvidia/cu13/lib", lib.display());
    let revision = std::process::Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .output()
        .ok()
        .filter(|o| o.status.success())
        .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_string())
        .unwrap_or_else(|| "unknown".into());
    println!("cargo:rustc-env=THRUWAY_GIT_REVISION={revision}");
}
