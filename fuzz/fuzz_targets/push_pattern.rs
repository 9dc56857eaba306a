#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kitbag_fuzz::push_pattern(input));
