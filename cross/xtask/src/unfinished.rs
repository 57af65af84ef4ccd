//! Macros of unfinished work, which clippy would refuse as well (`Cargo.toml` denies them), in a fraction of its time.

use anyhow::{Context, Result, bail};

use crate::tools::{root, rust_files};

const MACROS: [&str; 3] = ["dbg", "todo", "unimplemented"];

/// Folders with Rust of ours.
const FOLDERS: [&str; 3] = ["firmware", "cross", "tests"];

/// Looks through every Rust file.
pub fn check() -> Result<()> {
    let mut files = Vec::new();
    for folder in FOLDERS {
        rust_files(&root().join(folder), &mut files)?;
    }
    let mut wrong = Vec::new();
    for path in &files {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        wrong.extend(found(&text).map(|line| format!("{}:{line}", path.display())));
    }
    if wrong.is_empty() {
        println!("{} files have nothing unfinished", files.len());
        return Ok(());
    }
    bail!("unfinished:\n  {}", wrong.join("\n  "))
}

/// Numbers of the lines, from 1, that call such a macro.
fn found(text: &str) -> impl Iterator<Item = usize> {
    let calls = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        MACROS.iter().any(|name| calls(code, name))
    };
    text.lines().enumerate().filter(move |(_, line)| calls(line)).map(|(index, _)| index + 1)
}

fn calls(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let whole = before.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        whole && code[at + name.len()..].starts_with('!')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_unfinished() {
        check().expect("finished");
    }

    #[test]
    fn calls_are_found_and_words_are_not() {
        let mut text = String::from("// todo: words\nlet my_todo = 1;\n");
        for name in MACROS {
            text += &format!("    {name}!(x)\n");
        }
        assert_eq!(found(&text).collect::<Vec<_>>(), [3, 4, 5]);
        assert!(!calls(&format!("my_{}!()", MACROS[1]), MACROS[1]), "another macro");
    }
}
