#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| deltapush_fuzz::news(data));
