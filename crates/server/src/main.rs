//! The binary `kitbag`: see `kitbag --help`.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Gives memory back, and touches no page that nobody writes to: docs/adr/0006 has the figures.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// What jemalloc is set to, where it first looks: a thread gives back what was free for a second.
///
/// By itself it would do so while memory is asked for, and not once a load is gone.
#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "a symbol of this name is how jemalloc is configured"
)]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static SETTINGS: &[u8; 60] = b"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

fn main() -> ExitCode {
    kitbag_server::main()
}
