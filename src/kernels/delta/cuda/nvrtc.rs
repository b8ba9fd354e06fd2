//! The kernels' compilation by NVRTC, CUDA's run-time compiler: a library of 90 MB that comes with torch, needs no driver
//! and no GPU.
use crate::error::{Error, Result};
use cudarc::nvrtc::{result, sys};
use sha2::{Digest, Sha256};
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The kernels' source.
pub const SOURCE: &str = include_str!("../../../../cuda/ratio_conv.cu");

/// A compiled source with what the assembler says about it.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// Machine code, loadable by the driver.
    pub cubin: Vec<u8>,
    /// Each kernel's registers and spilled bytes.
    pub usage: Vec<Usage>,
}

/// What one kernel takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Its name.
    pub kernel: String,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of registers that a thread stores to memory for lack of room, and of those that it loads back.
    pub spilled: u32,
    /// Bytes of shared memory of a block.
    pub shared: u32,
}

fn failed(reason: impl std::fmt::Display) -> Error {
    Error::Device { device: "cuda".into(), reason: format!("NVRTC: {reason}; --device cpu needs none of it") }
}

/// Opens NVRTC, once. It looks for its own built-ins library by a bare name that a plain install does not resolve, so that
/// is opened first.
fn open() -> Result<()> {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
        for name in ["libnvrtc-builtins.so.13.0", "libnvrtc.so.13"] {
            // SAFETY: NVIDIA's own libraries, whose initialisers do nothing but register themselves.
            if let Ok(library) = unsafe { Library::open(Some(name), RTLD_NOW | RTLD_GLOBAL) } {
                std::mem::forget(library); // open for good
            }
        }
        // SAFETY: opens the library by its usual names.
        unsafe { sys::is_culib_present() }
    });
    if *found { Ok(()) } else { Err(failed("libnvrtc.so.13 was not found (pip install nvidia-cuda-nvrtc==13.0.88)")) }
}

/// Whether there is an NVRTC to compile with.
pub fn available() -> bool {
    open().is_ok()
}

/// Architectures that this NVRTC compiles for, as in 75, 80, .. 120.
///
/// # Errors
/// [`Error::Device`] without NVRTC.
pub fn architectures() -> Result<Vec<u32>> {
    open()?;
    let mut count = 0;
    // SAFETY: writes one number.
    unsafe { sys::nvrtcGetNumSupportedArchs(&mut count) }.result().map_err(failed)?;
    let mut found = vec![0; count as usize];
    // SAFETY: writes as many numbers as it has just counted.
    unsafe { sys::nvrtcGetSupportedArchs(found.as_mut_ptr()) }.result().map_err(failed)?;
    Ok(found.into_iter().map(|arch| arch as u32).collect())
}

fn options(architecture: u32) -> [String; 3] {
    [format!("--gpu-architecture=sm_{architecture}"), "--std=c++17".into(), "--ptxas-options=-v".into()]
}

/// Compiles the kernels for one architecture. Needs no GPU.
///
/// # Errors
/// [`Error::Device`] without NVRTC, or with the compiler's log.
pub fn compile(architecture: u32) -> Result<Compiled> {
    open()?;
    let source = CString::new(SOURCE).map_err(failed)?;
    let program = result::create_program(&source, Some(c"ratio_conv.cu")).map_err(failed)?;
    // SAFETY: a program just created, destroyed once below and not used afterwards.
    let (outcome, log, cubin) = unsafe {
        let outcome = result::compile_program(program, &options(architecture));
        let log = result::get_program_log(program).unwrap_or_default();
        let log: String = log.iter().map(|&c| c as u8 as char).filter(|&c| c != '\0').collect();
        let cubin = if outcome.is_ok() { machine_code(program) } else { Ok(vec![]) };
        let _ = result::destroy_program(program);
        (outcome, log, cubin)
    };
    if let Err(e) = outcome {
        return Err(failed(format!("sm_{architecture}: {e}\n{}", log.trim())));
    }
    Ok(Compiled { cubin: cubin?, usage: usage(&log) })
}

/// # Safety
/// A program that has been compiled for a real architecture.
unsafe fn machine_code(program: sys::nvrtcProgram) -> Result<Vec<u8>> {
    let mut size = 0;
    // SAFETY: writes one number.
    unsafe { sys::nvrtcGetCUBINSize(program, &mut size) }.result().map_err(failed)?;
    let mut code = vec![0u8; size];
    // SAFETY: writes as many bytes as it has just counted.
    unsafe { sys::nvrtcGetCUBIN(program, code.as_mut_ptr().cast()) }.result().map_err(failed)?;
    Ok(code)
}

/// Reads the assembler's report: "Compiling entry function 'name'", ".. bytes spill stores, .. bytes spill loads",
/// "Used N registers, .. bytes smem".
fn usage(log: &str) -> Vec<Usage> {
    let before = |line: &str, word: &str| -> u32 {
        let number = line.split(word).next().filter(|head| head.len() < line.len());
        number.and_then(|head| head.split_whitespace().last()).and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    let mut found: Vec<Usage> = vec![];
    for line in log.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            let kernel = rest.split('\'').next().unwrap_or_default().to_string();
            found.push(Usage { kernel, registers: 0, spilled: 0, shared: 0 });
        } else if let Some(last) = found.last_mut() {
            last.spilled += before(line, " bytes spill stores") + before(line, " bytes spill loads");
            last.registers = last.registers.max(before(line, " registers"));
            last.shared = last.shared.max(before(line, " bytes smem"));
        }
    }
    found
}

/// Machine code for an architecture: from the cache on disk, else compiled and put there. The cache is
/// `$XDG_CACHE_HOME/thruway` or `~/.cache/thruway`; a file's name holds the hash of all that went into it.
pub(super) fn cached(architecture: u32) -> Result<Vec<u8>> {
    let mut hash = Sha256::new();
    hash.update(SOURCE);
    hash.update(options(architecture).join(" "));
    let (mut major, mut minor) = (0, 0);
    open()?;
    // SAFETY: writes two numbers.
    unsafe { sys::nvrtcVersion(&mut major, &mut minor) }.result().map_err(failed)?;
    hash.update(format!("{major}.{minor}"));
    let name: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let directory = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).map(|dir| dir.join("thruway"));
    let file = directory.as_ref().map(|dir| dir.join(format!("ratio_conv-sm_{architecture}-{name}.cubin")));
    if let Some(code) = file.as_ref().and_then(|file| std::fs::read(file).ok()).filter(|code| !code.is_empty()) {
        return Ok(code);
    }
    let code = compile(architecture)?.cubin;
    if let (Some(directory), Some(file)) = (directory, file) {
        // written aside and renamed, so that another process never reads half of it; without a cache, compiled again
        let aside = file.with_extension(format!("{}", std::process::id()));
        let written = std::fs::create_dir_all(&directory)
            .and_then(|()| std::fs::write(&aside, &code))
            .and_then(|()| std::fs::rename(&aside, &file));
        if written.is_err() {
            let _ = std::fs::remove_file(&aside);
        }
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assemblers_report_is_read() {
        let log = "ptxas info    : Compiling entry function 'delta_ratio' for 'sm_90'\n\
            ptxas         .     32 bytes stack frame, 28 bytes spill stores, 30 bytes spill loads\n\
            ptxas info    : Used 96 registers, used 1 barriers, 10304 bytes smem\n\
            ptxas info    : Compiling entry function 'delta_units' for 'sm_90'\n\
            ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
            ptxas info    : Used 21 registers, used 0 barriers\n";
        let of = |kernel: &str, registers, spilled, shared| Usage { kernel: kernel.into(), registers, spilled, shared };
        assert_eq!(usage(log), [of("delta_ratio", 96, 58, 10304), of("delta_units", 21, 0, 0)]);
    }

    /// A second process finds what the first has left, and a hash of other options never does.
    #[test]
    fn machine_code_is_kept_on_disk() {
        if !available() {
            println!("SKIPPED machine_code_is_kept_on_disk: no NVRTC here");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        // SAFETY: tests of this crate run one at a time.
        unsafe { std::env::set_var("XDG_CACHE_HOME", dir.path()) };
        let code = cached(80).unwrap();
        let file = std::fs::read_dir(dir.path().join("thruway")).unwrap().next().unwrap().unwrap().path();
        std::fs::write(&file, b"kept").unwrap();
        assert_eq!(cached(80).unwrap(), b"kept");
        std::fs::write(&file, b"").unwrap(); // a write that was cut short
        assert_eq!(cached(80).unwrap(), code);
        // SAFETY: as above.
        unsafe { std::env::remove_var("XDG_CACHE_HOME") };
    }
}
