//! Fuzzing on stable Rust: inputs mutated from a kept corpus, or generated, in a sequence that a seed fixes.
//!
//! Absent: coverage feedback. Inputs that were accepted are mutated further, which leads past the first checks of a parser.
//!
//! `FUZZ_RUNS` is the number of runs of each target, and `FUZZ_SEED` the start of its sequence. A panic prints the input.

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

/// The runs of a target in the ordinary tests.
const SHORT: usize = 3_000;
/// The longest input, and the most accepted inputs that are mutated further.
const LONGEST: usize = 8 << 10;
const MOST_KEPT: usize = 128;
/// The most mutations of an input.
const MOST_MUTATIONS: usize = 6;
/// The most times that a part is repeated.
const MOST_REPEATS: usize = 40;
/// A run that takes longer has no bound on its work.
const LONGEST_RUN: Duration = Duration::from_secs(10);
/// Texts at the borders of numbers, types, encodings and paths.
const BORDERS: &[&str] = &[
    "",
    "0",
    "-0",
    "-1",
    "1e999",
    "1e-999",
    "NaN",
    "2147483648",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "99999999999999999999999",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "é😀",
    "\u{202e}",
    "\u{0}",
    "\\u0000",
    "\\ud800",
    "..",
    "%2e%2f",
    "$(HOME)",
    "?a=b",
    "user:word@",
];

/// Random numbers from a seed.
pub struct Random(u64);

impl Random {
    /// A number below a bound.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let number = usize::try_from(self.0 >> 16).unwrap_or(usize::MAX);
        number % bound.max(1)
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of several values.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// A target of fuzzing.
pub struct Fuzz {
    /// Its name, and that of the folder of its corpus in `tests/corpora`.
    pub name: &'static str,
    /// Words of its format.
    pub words: &'static [&'static str],
    /// Makes inputs beside those of the corpus.
    pub generate: Option<fn(&mut Random) -> String>,
    /// Of how many inputs at least one must be accepted: else the runs reach nothing.
    pub accepted_of: usize,
}

/// The input of a run; printed if the run panics.
struct Run<'a> {
    name: &'static str,
    number: usize,
    input: &'a [u8],
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let input = self.input.escape_ascii();
            eprintln!(
                "{}: run {} failed with b\"{input}\"",
                self.name, self.number
            );
        }
    }
}

impl Fuzz {
    /// Runs the target on every input of its corpus, and then on many that are made from them. `check` returns whether the input
    /// was accepted, and panics if a rule is broken.
    ///
    /// # Panics
    /// If `check` does, if a run takes very long, or if few inputs are accepted.
    pub fn run(&self, mut check: impl FnMut(&[u8]) -> bool) {
        let runs = number_of("FUZZ_RUNS", SHORT);
        let seed = number_of("FUZZ_SEED", 0x005e_ed5e_ed00);
        let mut random = Random(u64::try_from(seed).expect("a seed") | 1);
        let corpus = self.corpus();
        let mut kept = corpus.clone();
        let (mut accepted, mut longest) = (0, Duration::ZERO);
        let started = Instant::now();
        for number in 0..runs {
            let input = match corpus.get(number) {
                Some(input) => input.clone(),
                None => self.input(&mut random, &kept),
            };
            let run = Run {
                name: self.name,
                number,
                input: &input,
            };
            let begun = Instant::now();
            let is_accepted = check(&input);
            longest = longest.max(begun.elapsed());
            assert!(longest < LONGEST_RUN, "a run took {longest:?}");
            drop(run);
            if is_accepted {
                accepted += 1;
                if kept.len() < MOST_KEPT {
                    kept.push(input);
                } else if random.once_in(16) {
                    // The corpus itself stays.
                    let at = corpus.len() + random.below(MOST_KEPT.saturating_sub(corpus.len()));
                    if let Some(slot) = kept.get_mut(at) {
                        *slot = input;
                    }
                }
            }
        }
        println!(
            "fuzz {}: {runs} runs, {accepted} accepted, the longest took {longest:?}; {:.0} s",
            self.name,
            started.elapsed().as_secs_f64()
        );
        assert!(
            accepted * self.accepted_of >= runs,
            "{}: only {accepted} of {runs} inputs were accepted",
            self.name
        );
    }

    /// The files of the corpus, in the order of their names.
    fn corpus(&self) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpora");
        let Ok(entries) = std::fs::read_dir(folder.join(self.name)) else {
            assert!(self.generate.is_some(), "{} has no corpus", self.name);
            return Vec::new();
        };
        let mut files: Vec<_> = entries.map(|each| each.expect("a file").path()).collect();
        files.sort();
        let read = |path| std::fs::read(path).expect("a file of the corpus");
        files.into_iter().map(read).collect()
    }

    /// The next input.
    fn input(&self, random: &mut Random, kept: &[Vec<u8>]) -> Vec<u8> {
        let generated = match self.generate {
            Some(generate) if kept.is_empty() || !random.once_in(3) => Some(generate(random)),
            _ => None,
        };
        let (mut input, mutations) = match generated {
            // Most of what is generated is well formed, and stays so.
            Some(text) if !random.once_in(4) => (text.into_bytes(), 0),
            Some(text) => (text.into_bytes(), random.below(4)),
            None => (random.pick(kept).clone(), random.below(MOST_MUTATIONS + 1)),
        };
        for _ in 0..mutations {
            self.mutate(&mut input, random, kept);
            input.truncate(LONGEST);
        }
        input
    }

    fn mutate(&self, input: &mut Vec<u8>, random: &mut Random, kept: &[Vec<u8>]) {
        let at = random.below(input.len() + 1);
        let token = token_at(input, at);
        match random.below(10) {
            0 | 1 => replace(input, token, random.pick(BORDERS).as_bytes()),
            2 | 3 if !self.words.is_empty() => {
                let word = random.pick(self.words).as_bytes();
                replace(input, token, word);
            }
            4 if !kept.is_empty() => {
                let other = random.pick(kept);
                let from = random.below(other.len() + 1);
                let word = other[token_at(other, from)].to_vec();
                replace(input, token, &word);
            }
            5 if !kept.is_empty() => {
                let other = random.pick(kept);
                let from = random.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            6 => {
                let group = group_at(input, at);
                let mut copy = vec![b','];
                copy.extend_from_slice(&input[group.clone()]);
                let copies = copy.repeat(1 + random.below(MOST_REPEATS));
                replace(input, group.end..group.end, &copies);
            }
            7 => {
                let length = random.below(16);
                replace(input, at..(at + length).min(input.len()), b"");
            }
            8 if at < input.len() => input[at] ^= 1 << random.below(8),
            _ => {
                let byte = u8::try_from(random.below(256)).unwrap_or_default();
                input.insert(at, byte);
            }
        }
    }
}

fn number_of(name: &str, otherwise: usize) -> usize {
    match std::env::var(name) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => otherwise,
    }
}

fn replace(input: &mut Vec<u8>, part: Range<usize>, with: &[u8]) {
    input.splice(part, with.iter().copied());
}

/// The word around a position, else the character there.
fn token_at(input: &[u8], at: usize) -> Range<usize> {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let before = input[..at].iter().rev().take_while(|byte| is_word(byte));
    let after = input[at..].iter().take_while(|byte| is_word(byte));
    let (start, end) = (at - before.count(), at + after.count());
    if start == end {
        at..(at + 1).min(input.len())
    } else {
        start..end
    }
}

/// The brackets that open at a position or next after it, with all that they hold; else the word there.
fn group_at(input: &[u8], at: usize) -> Range<usize> {
    let is_open = |byte: &u8| matches!(byte, b'{' | b'[' | b'(');
    let Some(offset) = input[at..].iter().position(is_open) else {
        return token_at(input, at);
    };
    let (start, mut depth) = (at + offset, 0_usize);
    for (index, byte) in input.iter().enumerate().skip(start) {
        match byte {
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return start..index + 1;
        }
    }
    start..input.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_brackets_are_found() {
        let json = br#"{"a":[{"b":12},{}]}"#;
        assert_eq!(&json[token_at(json, 11)], b"12");
        assert_eq!(&json[token_at(json, 0)], b"{");
        assert_eq!(token_at(json, json.len()), json.len()..json.len());
        assert_eq!(&json[group_at(json, 1)], br#"[{"b":12},{}]"#);
        assert_eq!(&json[group_at(json, 6)], br#"{"b":12}"#);
    }

    /// Seeds lead to the same inputs everywhere, so that a finding can be repeated; and the corpus and the words are used.
    #[test]
    fn inputs_are_mutated_from_the_corpus_and_the_words() {
        let fuzz = Fuzz {
            name: "gates",
            words: &["zebra"],
            generate: None,
            accepted_of: 1,
        };
        let (mut random, mut again) = (Random(7), Random(7));
        let kept = [b"alpha(beta)".to_vec(), b"gamma".to_vec()];
        let inputs: Vec<_> = (0..500).map(|_| fuzz.input(&mut random, &kept)).collect();
        assert!(
            inputs
                .iter()
                .all(|each| *each == fuzz.input(&mut again, &kept))
        );
        let has = |part: &[u8]| {
            let with = |each: &&Vec<u8>| each.windows(part.len()).any(|window| window == part);
            inputs.iter().filter(with).count()
        };
        assert!(has(b"zebra") > 50 && has(b"alpha") > 50 && has(b"(beta),(beta)") > 1);
        assert!(inputs.contains(&kept[0]), "some are tried as they are");
    }
}
