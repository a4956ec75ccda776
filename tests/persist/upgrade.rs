//! A differently built program that does the same, as an upgrade brings one: a copy of the binary in
//! whose kernel object neighbouring instructions that do not depend on one another have changed
//! places. A second build with other optimisations would do as well, and take minutes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use object::{Architecture, Object as _, ObjectSection as _, SectionKind};

const INSTRUCTION: usize = 8;

/// Opcodes (linux/bpf.h, RFC 9669).
const LOAD_64_BITS: u8 = 0x18;
const MOVE_CONSTANT: u8 = 0xb7;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const JUMP_LONG: u8 = 0x06;
const CLASS: u8 = 0x07;
const CLASS_JUMP: u8 = 0x05;
const CLASS_JUMP_32: u8 = 0x06;

/// Writes the other build of `binary` to `path`.
pub fn other_build(binary: &Path, path: &Path) -> Result<()> {
    let mut bytes = fs::read(binary)?;
    let (start, sections) = kernel_object(&bytes)?;
    let mut swapped = 0;
    for (offset, length) in sections {
        let code = &mut bytes[start + offset..start + offset + length];
        swapped += swap_independent_neighbours(code);
    }
    ensure!(swapped > 0, "the program has no two constants in a row");
    fs::write(path, bytes)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Where the object begins, and offset and length of its sections with code.
fn kernel_object(bytes: &[u8]) -> Result<(usize, Vec<(usize, usize)>)> {
    for (start, _) in bytes
        .windows(4)
        .enumerate()
        .filter(|(_, window)| window == b"\x7fELF")
    {
        let Ok(file) = object::File::parse(&bytes[start..]) else {
            continue;
        };
        if file.architecture() != Architecture::Bpf {
            continue;
        }
        let code = file
            .sections()
            .filter(|section| section.kind() == SectionKind::Text)
            .filter_map(|section| section.file_range())
            .map(|(offset, length)| (offset as usize, length as usize));
        return Ok((start, code.collect()));
    }
    None.context("no kernel object in the binary")
}

/// Swaps pairs of instructions that load a constant into different registers; returns how many.
fn swap_independent_neighbours(code: &mut [u8]) -> usize {
    let targets = jump_targets(code);
    let is_constant = |code: &[u8], at: usize| code.get(at * INSTRUCTION) == Some(&MOVE_CONSTANT);
    let (mut swapped, mut at) = (0, 0);
    while at + 1 < code.len() / INSTRUCTION {
        if code[at * INSTRUCTION] == LOAD_64_BITS {
            at += 2;
            continue;
        }
        let register = |at: usize| code[at * INSTRUCTION + 1];
        if is_constant(code, at)
            && is_constant(code, at + 1)
            && register(at) != register(at + 1)
            && !targets.contains(&(at + 1))
        {
            let pair = &mut code[at * INSTRUCTION..(at + 2) * INSTRUCTION];
            pair.rotate_left(INSTRUCTION);
            swapped += 1;
            at += 2;
        } else {
            at += 1;
        }
    }
    swapped
}

/// The numbers of the instructions that others jump to.
fn jump_targets(code: &[u8]) -> BTreeSet<usize> {
    let mut targets = BTreeSet::new();
    for (at, instruction) in code.chunks_exact(INSTRUCTION).enumerate() {
        let opcode = instruction[0];
        let is_jump = matches!(opcode & CLASS, CLASS_JUMP | CLASS_JUMP_32);
        if !is_jump || matches!(opcode, CALL | EXIT) {
            continue;
        }
        let [_, _, offset @ .., _, _, _, _] = instruction else {
            continue;
        };
        let offset = match opcode {
            JUMP_LONG => instruction[4..].try_into().map(i32::from_le_bytes),
            _ => offset.try_into().map(i16::from_le_bytes).map(i32::from),
        };
        let target = offset.ok().and_then(|offset| {
            let next = isize::try_from(at).ok()? + 1;
            usize::try_from(next + offset as isize).ok()
        });
        targets.extend(target);
    }
    targets
}
