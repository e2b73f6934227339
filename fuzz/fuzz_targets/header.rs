//! `fasttriplet_fuzz::header` for libFuzzer.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: fasttriplet_fuzz::use_one_thread(), |data: &[u8]| fasttriplet_fuzz::header::check(data));
