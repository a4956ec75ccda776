//! Passes to bpf-linker what rustc does not.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Fields of a frame are not aligned. Without this each is loaded byte by byte; every machine that
    // Linux runs XDP on loads whole words there, and the verifier refuses the program where it does
    // not.
    println!("cargo:rustc-link-arg-bins=--cpu-features=+allows-misaligned-mem-access");
}
