//! A broadcaster does what the model does, whatever is done to it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidings_fuzz::rig;
use tidings_fuzz::script::Script;

fuzz_target!(|script: Script| rig::run(&script));
