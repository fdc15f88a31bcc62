//! The Markdown pages of the repository: their fenced blocks, headings and links.
//! Absent: rendering, and running the commands.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};

/// A page.
#[derive(Debug, Clone)]
pub struct Page {
    /// Its path in the repository.
    pub path: PathBuf,
    text: String,
}

/// A fenced block of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The line of its fence.
    pub line: usize,
    /// The word behind the fence; empty if there is none.
    pub language: String,
    /// Its lines, without the indentation of the fence.
    pub text: String,
    /// The reason in the comment in front of it, `<!-- not run: … -->` or `<!-- not applied: … -->`.
    pub excuse: Option<String>,
}

/// The folder of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    crate::crate_folder().join("../..")
}

/// README.md and all pages below docs/.
pub fn pages() -> Result<Vec<Page>> {
    let mut paths = vec![PathBuf::from("README.md")];
    paths.extend(files("docs", "md")?);
    paths.iter().map(|path| Page::read(path)).collect()
}

/// The files below a folder of the repository whose names end so, sorted.
pub fn files(folder: &str, ending: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        let what = format!("reading the folder {}", folder.display());
        for entry in fs::read_dir(repository().join(&folder)).context(&what)? {
            let path = folder.join(entry.context(&what)?.file_name());
            if repository().join(&path).is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == ending)
            {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

impl Page {
    /// The page at this path in the repository.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(repository().join(path));
        Ok(Self {
            path: path.to_owned(),
            text: text.context(format_args!("reading {}", path.display()))?,
        })
    }

    /// The fenced blocks, in their order.
    #[must_use]
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut open: Option<Block> = None;
        let (mut indentation, mut before) = (0, "");
        for (number, line) in self.text.lines().enumerate() {
            let fence = line.trim_start().strip_prefix("```");
            match (&mut open, fence) {
                (None, Some(language)) => {
                    indentation = line.len() - line.trim_start().len();
                    open = Some(Block {
                        line: number + 1,
                        language: language.trim().to_owned(),
                        text: String::new(),
                        excuse: excuse(before),
                    });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(block), None) => {
                    block
                        .text
                        .push_str(line.get(indentation..).unwrap_or_default());
                    block.text.push('\n');
                }
                (None, None) => (),
            }
            before = line;
        }
        blocks
    }

    /// The text outside of fenced blocks and of code in a line.
    #[must_use]
    pub fn prose(&self) -> String {
        let mut prose = String::new();
        let mut fenced = false;
        for line in self.text.lines() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            } else if !fenced {
                prose.extend(line.split('`').step_by(2));
                prose.push('\n');
            }
        }
        prose
    }

    /// The headings, without the number signs.
    #[must_use]
    pub fn headings(&self) -> Vec<String> {
        let mut fenced = false;
        let mut headings = Vec::new();
        for line in self.text.lines() {
            fenced ^= line.trim_start().starts_with("```");
            let level = line.len() - line.trim_start_matches('#').len();
            if !fenced && level > 0 && line[level..].starts_with(' ') {
                headings.push(line[level..].trim().to_owned());
            }
        }
        headings
    }

    /// The anchors that GitHub makes of the headings.
    #[must_use]
    pub fn anchors(&self) -> Vec<String> {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut anchors = Vec::new();
        for heading in self.headings() {
            let kept = heading.to_lowercase().replace(' ', "-");
            let plain: String = kept
                .chars()
                .filter(|each| each.is_alphanumeric() || *each == '-' || *each == '_')
                .collect();
            let count = seen.entry(plain.clone()).or_default();
            anchors.push(if *count == 0 {
                plain
            } else {
                format!("{plain}-{count}")
            });
            *count += 1;
        }
        anchors
    }

    /// The targets of its links that are not addresses of other sites.
    #[must_use]
    pub fn links(&self) -> Vec<String> {
        let prose = self.prose();
        let targets = prose.split("](").skip(1);
        targets
            .filter_map(|rest| rest.split(')').next())
            .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
            .map(ToOwned::to_owned)
            .collect()
    }

    /// The text of the section below a heading, up to the next heading of any level.
    #[must_use]
    pub fn section(&self, heading: &str) -> Option<&str> {
        let start = self.text.find(&format!("\n## {heading}\n"))? + heading.len() + 5;
        let section = &self.text[start..];
        Some(section.split("\n#").next().unwrap_or(section).trim())
    }
}

impl Block {
    /// Whether it holds commands.
    #[must_use]
    pub fn is_commands(&self) -> bool {
        matches!(self.language.as_str(), "sh" | "console")
    }

    /// The commands: all of a script, or the lines of a session that begin with a prompt, each with the output below it.
    #[must_use]
    pub fn commands(&self) -> Vec<(String, String)> {
        if self.language != "console" {
            return vec![(self.text.clone(), String::new())];
        }
        let mut commands: Vec<(String, String)> = Vec::new();
        for line in self.text.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                commands.push((command.to_owned(), String::new()));
            } else if let Some((_, output)) = commands.last_mut() {
                output.push_str(line);
                output.push('\n');
            }
        }
        commands
    }
}

fn excuse(line: &str) -> Option<String> {
    let comment = line
        .trim()
        .strip_prefix("<!-- not ")?
        .strip_suffix(" -->")?;
    let (_, reason) = comment.split_once(": ")?;
    Some(reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Page {
        Page {
            path: "page.md".into(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn blocks_are_found_with_their_language_and_excuse() {
        let text = "# A\n\n<!-- not run: no engine -->\n```sh\ndocker build .\n```\n\n1. b\n\n   ```yaml\n   a:\n     b: 1\n   ```\n";
        let blocks = page(text).blocks();
        assert_eq!(blocks[0].excuse.as_deref(), Some("no engine"));
        assert_eq!(
            (blocks[0].language.as_str(), blocks[0].text.as_str()),
            ("sh", "docker build .\n")
        );
        assert_eq!(
            blocks[1],
            Block {
                line: 10,
                language: "yaml".into(),
                text: "a:\n  b: 1\n".into(),
                excuse: None
            }
        );
    }

    #[test]
    fn a_session_is_commands_with_their_output() {
        let text = "```console\n$ kubectl get abind\nNAME\nb\n$ date\n```\n";
        let commands = page(text).blocks()[0].commands();
        assert_eq!(
            commands[0],
            ("kubectl get abind".into(), "NAME\nb\n".into())
        );
        assert_eq!(commands[1].0, "date");
    }

    #[test]
    fn anchors_are_those_of_github() {
        let text = "# Who's *here*?\n\n```sh\n# no heading\n```\n## `a_b` and c\n## A\n## A\n";
        assert_eq!(page(text).anchors(), ["whos-here", "a_b-and-c", "a", "a-1"]);
    }

    #[test]
    fn links_outside_of_code_are_found() {
        let text = "[a](b.md#c), `[x](y)` and [d](https://e)\n```text\n[f](g)\n```\n";
        assert_eq!(page(text).links(), ["b.md#c"]);
    }
}
