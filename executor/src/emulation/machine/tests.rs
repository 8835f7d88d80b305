//! The smallest programs, run by the emulators that this host has.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::*;

#[test]
#[allow(clippy::print_stderr)] // a test says what it leaves out
fn the_smallest_programs_end_well() {
    let directory = tempfile::tempdir().unwrap();
    let mut missing = Vec::new();
    for machine in MACHINES {
        let program = directory.path().join(machine.name());
        std::fs::write(&program, machine.program()).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let is_host =
            kiln_ir::Platform::linux(machine.architecture) == crate::executor::host_platform();
        let ran = match is_host {
            true => Command::new(&program).status(),
            false => Command::new(&machine.emulator()[0]).arg(&program).status(),
        };
        match ran {
            Ok(status) => assert_eq!(status.code(), Some(0), "{}", machine.name()),
            Err(_) => missing.push(machine.emulator()[0].clone()),
        }
    }
    if !missing.is_empty() {
        eprintln!("skipped: there is no {}", missing.join(", "));
    }
}

#[test]
fn magic_is_qemus() {
    let check = |architecture: &str, machine: [u8; 2], mask: [u8; 2]| {
        let (magic, of) = Machine::of(architecture).unwrap().magic();
        assert_eq!((magic.len(), of.len()), (20, 20));
        assert_eq!(magic[18..], machine);
        assert_eq!(of[16..18], mask);
    };
    check("arm64", [0xb7, 0x00], [0xfe, 0xff]);
    check("s390x", [0x00, 0x16], [0xff, 0xfe]);
    check("loong64", [0x02, 0x01], [0xfe, 0xff]);
}

#[test]
fn static_programs_are_known() {
    let machine = Machine::of("arm64").unwrap();
    let program = machine.program();
    assert!(names_no_interpreter(&program));
    let mut dynamic = program.clone();
    dynamic[64] = 3;
    assert!(!names_no_interpreter(&dynamic));
    for wrong in [&b""[..], b"\x7fELF\x02\x01", b"#!/bin/sh\n", &program[..60]] {
        assert!(!names_no_interpreter(wrong));
    }
}
