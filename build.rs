//! Builds the C++ shim of `autograd` and the CPU twin of the CUDA kernels, and writes libtorch's folder into every binary's RUNPATH.
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=src/autograd/shim.cpp");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
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
    // The CUDA kernels as C++, for the tests; nothing of it is linked into a program that does not call it.
    for file in ["cuda/ratio_conv.cu", "cuda/twin.h", "cuda/twin.cpp"] {
        println!("cargo:rerun-if-changed={file}");
    }
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .pic(true)
        .flag_if_supported("-Wno-unknown-pragmas")
        .opt_level(2)
        .file("cuda/twin.cpp")
        .compile("thruway_twin");
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    // NVRTC lies in the CUDA wheel beside libtorch.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}/../../nvidia/cu13/lib", lib.display());
    // Every commit adds a line to this log; in a worktree it lies elsewhere than in .git.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| std::path::Path::new(log).exists()) {
        println!("cargo:rerun-if-changed={log}");
    }
    let revision = git(&["describe", "--always", "--dirty", "--abbrev=12"]).unwrap_or_else(|| "unknown".into());
    println!("cargo:rustc-env=THRUWAY_GIT_REVISION={revision}");
}

/// What git prints, or nothing outside a repository.
fn git(arguments: &[&str]) -> Option<String> {
    let out = std::process::Command::new("git").args(arguments).output().ok().filter(|out| out.status.success())?;
    Some(String::from_utf8_lossy(&out.stdout).trim().to_string())
}
