//! `fasttriplet_fuzz::records` for libFuzzer.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: fasttriplet_fuzz::use_one_thread(), |data: &[u8]| fasttriplet_fuzz::records::check(data));
