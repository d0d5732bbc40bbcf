//! Links the probe without symbols: every container gets a copy of it.
#![forbid(unsafe_code)]

fn main() {
    println!("cargo:rustc-link-arg-bin=probe=-s");
    println!("cargo:rerun-if-changed=build.rs");
}
