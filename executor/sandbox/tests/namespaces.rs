//! Real sandboxes on the kernel that runs the tests.

fn main() {
    kiln_sandbox::init_if_requested();
    libtest_mimic::run(&libtest_mimic::Arguments::from_args(), Vec::new()).exit();
}
