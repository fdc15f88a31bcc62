//! The source of an expression: its bounds, its parsers, and positions in it.
//!
//! Absent: types.

use std::fmt;

use cel::common::ast::{IdedExpr, SourceInfo};
use cel::parser::PrattParser;
use cel::{Env, ParseErrors};

/// The longest expression, in bytes. The definition of the API has the same bound in characters.
pub const LONGEST: usize = 1024;
/// The deepest nesting: the brackets around a part, and the operators before it that are not `&&` or `||`.
const DEEPEST: usize = 40;
/// The most `?` of an expression: each nests what comes after it.
const MOST_CHOICES: usize = 16;
/// The most brackets in each other. A level takes 200 KB of the stack in a build that is not optimized.
const MOST_BRACKETS: usize = 5;

/// A fault of an expression.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExpressionFault {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// The fault.
    pub message: String,
}

impl fmt::Display for ExpressionFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            column,
            message,
        } = self;
        write!(formatter, "line {line}, column {column}: {message}")
    }
}

/// The parts of an expression, with the positions of each.
///
/// # Errors
/// If the expression is too long or nested too deeply, or breaks the grammar.
pub fn parse(source: &str) -> Result<(IdedExpr, SourceInfo), ExpressionFault> {
    bounded(source)?;
    // This parser says in few words what is wrong. The other one, which has the positions, sees only sources that are right.
    if let Err(errors) = PrattParser::new().parse(source) {
        return Err(first_fault(source, &errors));
    }
    let parser = Env::default().with_optional_support(false).parser();
    parser
        .parse_with_source_info(source)
        .map_err(|errors| first_fault(source, &errors))
}

/// The fault at the part of this number.
#[must_use]
pub fn fault_at(info: &SourceInfo, part: u64, message: String) -> ExpressionFault {
    let start = info.offset_for(part).map_or(0, |(start, _)| start);
    position(&info.source, usize::try_from(start).unwrap_or(0), message)
}

/// The fault at this byte of the source.
fn position(source: &str, offset: usize, message: String) -> ExpressionFault {
    let before = source.get(..offset).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default();
    ExpressionFault {
        line: before.matches('\n').count() + 1,
        column: line.chars().count() + 1,
        message,
    }
}

/// The first of the parsers' errors, whose columns are bytes.
fn first_fault(source: &str, errors: &ParseErrors) -> ExpressionFault {
    let Some(first) = errors.errors.first() else {
        return position("", 0, "it cannot be parsed".to_owned());
    };
    let from_zero = |number: isize| usize::try_from(number).unwrap_or(1).saturating_sub(1);
    let (line, column) = (from_zero(first.pos.0), from_zero(first.pos.1));
    let lines = source.split_inclusive('\n').take(line);
    let offset = lines.map(str::len).sum::<usize>() + column;
    let message = first.msg.strip_prefix("Syntax error: ");
    position(source, offset, message.unwrap_or(&first.msg).to_owned())
}

/// Checks the bounds that protect the parsers: they call themselves for each level of nesting, and a stack that is full ends the
/// process. So that the levels can be counted here, an expression has no escapes, no comments and no triple quotes.
fn bounded(source: &str) -> Result<(), ExpressionFault> {
    let refuse = |at: usize, message: &str| Err(position(source, at, message.to_owned()));
    if source.len() > LONGEST {
        return refuse(
            0,
            "it is longer than 1024 bytes: split it into several gates",
        );
    }
    for unwanted in ["\\", "'''", "\"\"\""] {
        if let Some(at) = source.find(unwanted) {
            return refuse(at, "gates have no \\ and no triple quotes");
        }
    }
    if source.matches('?').count() > MOST_CHOICES {
        return refuse(0, "it has too many ?: split it into several gates");
    }
    let mut levels = vec![0_usize];
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in source.char_indices() {
        match (quote, c) {
            (Some(_), '\n' | '\r') => return refuse(at, "this text has no closing quote"),
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '/') if before == '/' => return refuse(at, "gates have no comments"),
            (None, '(' | '[' | '{') => levels.push(1),
            (None, ')' | ']' | '}') if levels.len() > 1 => _ = levels.pop(),
            (None, '&' | '|' | ',') => flatten(&mut levels),
            (None, '+' | '-' | '*' | '/' | '%' | '<' | '>' | '=' | '!' | '.' | '?' | ':') => {
                deepen(&mut levels);
            }
            // The operator, or a part of a name.
            (None, 'n') if before == 'i' => {
                deepen(&mut levels);
            }
            _ => {}
        }
        before = if quote.is_some() { ' ' } else { c };
        if levels.len() > MOST_BRACKETS + 1 || levels.iter().sum::<usize>() > DEEPEST {
            return refuse(at, "it is nested too deeply: split it into several gates");
        }
    }
    Ok(())
}

fn deepen(levels: &mut [usize]) {
    if let Some(top) = levels.last_mut() {
        *top += 1;
    }
}

fn flatten(levels: &mut [usize]) {
    if let Some(top) = levels.last_mut() {
        *top = 0;
    }
}
