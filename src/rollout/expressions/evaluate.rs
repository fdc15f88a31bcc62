//! Evaluates checked expressions in three values: true, false and unknown, within a budget of steps.
//!
//! Absent: types. `check` has made sure of them, so an operation on other ones is unknown and not an error of its own.

use std::borrow::Cow;
use std::cmp::Ordering;

use jiff::{SignedDuration, Timestamp};

use super::node::{Arithmetic, Comprehension, Function, Node, Order};
use super::value::{Facts, Unknown, Value};

/// The most steps of an evaluation: a node, an item of a list, or 64 bytes of text.
const MOST_STEPS: u32 = 10_000;
/// The bytes of text that are one step.
const STEP_BYTES: usize = 64;

type Result<T> = std::result::Result<T, Unknown>;

/// An evaluation with these facts.
pub struct Evaluator<'a> {
    facts: &'a Facts<'a>,
    steps: u32,
    /// The variables of the comprehensions around the node, the outermost first.
    locals: Vec<Value<'a>>,
}

impl<'a> Evaluator<'a> {
    /// An evaluation that has not begun.
    #[must_use]
    pub fn new(facts: &'a Facts<'a>) -> Self {
        Self {
            facts,
            steps: 0,
            locals: Vec::new(),
        }
    }

    /// The truth value of a node.
    ///
    /// # Errors
    /// If it is unknown.
    pub fn truth(&mut self, node: &'a Node) -> Result<bool> {
        match self.value(node)? {
            Value::Bool(truth) => Ok(truth),
            _ => unfit(),
        }
    }

    /// The value of a node.
    ///
    /// # Errors
    /// If it is unknown.
    pub fn value(&mut self, node: &'a Node) -> Result<Value<'a>> {
        self.take(1)?;
        match node {
            Node::Literal(literal) => Ok(literal.value()),
            Node::Variable(variable) => Ok(self.facts.variable(*variable)),
            Node::Local(number) => {
                let value = self.locals.get(*number).cloned().ok_or_else(unfit_reason)?;
                self.take_texts(&[&value])?;
                Ok(value)
            }
            Node::Field(record, field) => match self.value(record)? {
                Value::Record(record) => record.field(*field, self.facts.now),
                // Of all records only the current version may be null.
                Value::Null => Err(Unknown::NoCurrent),
                _ => unfit(),
            },
            Node::Index(container, key) => self.index(container, key),
            Node::Has(node) => self.has(node).map(Value::Bool),
            Node::List(items) => {
                let items = items.iter().map(|item| self.value(item));
                Ok(Value::List(items.collect::<Result<_>>()?))
            }
            Node::Not(node) => Ok(Value::Bool(!self.truth(node)?)),
            Node::And(nodes) => self.logical(nodes, false).map(Value::Bool),
            Node::Or(nodes) => self.logical(nodes, true).map(Value::Bool),
            Node::If(parts) => {
                let [condition, yes, no] = parts.as_ref();
                let chosen = if self.truth(condition)? { yes } else { no };
                self.value(chosen)
            }
            Node::Equal(operands) => {
                let (left, right) = self.both(operands)?;
                self.take_texts(&[&left, &right])?;
                equal(&left, &right).map(Value::Bool)
            }
            Node::Order(order, operands) => self.is_ordered(*order, operands),
            Node::Arithmetic(operation, operands) => {
                let (left, right) = self.both(operands)?;
                self.take_texts(&[&left, &right])?;
                calculate(*operation, left, right)
            }
            Node::Negate(node) => negate(&self.value(node)?),
            Node::In(operands) => self.contains(operands).map(Value::Bool),
            Node::Call(function, arguments) => self.call(*function, arguments),
            Node::Comprehension(kind, parts) => self.comprehend(*kind, parts),
        }
    }

    /// Takes steps of the budget.
    fn take(&mut self, steps: usize) -> Result<()> {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.steps = self.steps.saturating_add(steps);
        if self.steps > MOST_STEPS {
            return Unknown::because(format!("it takes more than {MOST_STEPS} steps"));
        }
        Ok(())
    }

    fn take_texts(&mut self, values: &[&Value<'_>]) -> Result<()> {
        let mut bytes = 0;
        for value in values {
            if let Value::String(text) = value {
                bytes += text.len();
            }
        }
        self.take(bytes / STEP_BYTES)
    }

    fn both(&mut self, operands: &'a [Node; 2]) -> Result<(Value<'a>, Value<'a>)> {
        let [left, right] = operands;
        Ok((self.value(left)?, self.value(right)?))
    }

    fn is_ordered(&mut self, order: Order, operands: &'a [Node; 2]) -> Result<Value<'a>> {
        let (left, right) = self.both(operands)?;
        self.take_texts(&[&left, &right])?;
        let ordering = compare(&left, &right)?;
        Ok(Value::Bool(match order {
            Order::Less => ordering.is_lt(),
            Order::LessOrEqual => ordering.is_le(),
            Order::Greater => ordering.is_gt(),
            Order::GreaterOrEqual => ordering.is_ge(),
        }))
    }

    fn index(&mut self, container: &'a Node, key: &'a Node) -> Result<Value<'a>> {
        match (self.value(container)?, self.value(key)?) {
            (Value::Map(map), Value::String(key)) => map.get(&key),
            (Value::List(items), Value::Int(number)) => {
                let length = items.len();
                let index = usize::try_from(number).ok();
                let item = index.and_then(|index| items.into_iter().nth(index));
                item.ok_or_else(|| {
                    Unknown::Because(format!("a list of {length} items has no item {number}"))
                })
            }
            _ => unfit(),
        }
    }

    /// Whether a field or key is there; a map or list is if it is not empty. Nothing is in a version that does not exist.
    fn has(&mut self, node: &'a Node) -> Result<bool> {
        match self.value(node) {
            Ok(Value::Map(map)) => Ok(!map.entries()?.is_empty()),
            Ok(Value::List(items)) => Ok(!items.is_empty()),
            Ok(_) => Ok(true),
            Err(Unknown::NoCurrent | Unknown::Absent(_)) => Ok(false),
            Err(unknown) => Err(unknown),
        }
    }

    /// A chain of `||` (`deciding` is true) or `&&`.
    fn logical(&mut self, nodes: &'a [Node], deciding: bool) -> Result<bool> {
        decided(nodes.iter().map(|node| self.truth(node)), deciding)
    }

    fn contains(&mut self, operands: &'a [Node; 2]) -> Result<bool> {
        match self.both(operands)? {
            (Value::String(key), Value::Map(map)) => Ok(map.entries()?.contains_key(key.as_ref())),
            (item, Value::List(items)) => {
                for each in &items {
                    self.take(1)?;
                    self.take_texts(&[each])?;
                    if equal(&item, each)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            _ => unfit(),
        }
    }

    fn comprehend(&mut self, kind: Comprehension, parts: &'a [Node; 2]) -> Result<Value<'a>> {
        let [items, body] = parts;
        let items = match self.value(items)? {
            Value::List(items) => items,
            Value::Map(map) => {
                let keys = map.entries()?.keys();
                keys.map(|key| Value::String(Cow::Borrowed(key.as_str())))
                    .collect()
            }
            _ => return unfit(),
        };
        match kind {
            Comprehension::All => self.any(items, body, false).map(Value::Bool),
            Comprehension::Exists => self.any(items, body, true).map(Value::Bool),
            Comprehension::ExistsOne => {
                let mut count = 0;
                for item in items {
                    count += u32::from(self.truth_for(item, body)?);
                }
                Ok(Value::Bool(count == 1))
            }
            Comprehension::Filter => {
                let mut kept = Vec::new();
                for item in items {
                    if self.truth_for(item.clone(), body)? {
                        kept.push(item);
                    }
                }
                Ok(Value::List(kept))
            }
            Comprehension::Map => {
                let results = items.into_iter().map(|item| self.value_for(item, body));
                Ok(Value::List(results.collect::<Result<_>>()?))
            }
        }
    }

    /// `exists` (`deciding` is true) or `all`.
    fn any(&mut self, items: Vec<Value<'a>>, body: &'a Node, deciding: bool) -> Result<bool> {
        let truths = items.into_iter().map(|item| self.truth_for(item, body));
        decided(truths, deciding)
    }

    fn truth_for(&mut self, item: Value<'a>, body: &'a Node) -> Result<bool> {
        match self.value_for(item, body)? {
            Value::Bool(truth) => Ok(truth),
            _ => unfit(),
        }
    }

    fn value_for(&mut self, item: Value<'a>, body: &'a Node) -> Result<Value<'a>> {
        self.locals.push(item);
        let value = self.value(body);
        self.locals.pop();
        value
    }

    fn call(&mut self, function: Function, arguments: &'a [Node]) -> Result<Value<'a>> {
        let mut values = Vec::with_capacity(arguments.len());
        for argument in arguments {
            let value = self.value(argument)?;
            self.take_texts(&[&value])?;
            values.push(value);
        }
        let mut values = values.into_iter();
        let (Some(first), second, third) = (values.next(), values.next(), values.next()) else {
            return unfit();
        };
        match (function, first, second) {
            (Function::Size, value, None) => size(&value),
            (Function::Contains, Value::String(text), Some(Value::String(part))) => {
                // The worst case of a search: each character of the one is compared with the other.
                self.take(text.len().saturating_mul(part.len()) / STEP_BYTES)?;
                Ok(Value::Bool(text.contains(part.as_ref())))
            }
            (Function::StartsWith, Value::String(text), Some(Value::String(part))) => {
                Ok(Value::Bool(text.starts_with(part.as_ref())))
            }
            (Function::EndsWith, Value::String(text), Some(Value::String(part))) => {
                Ok(Value::Bool(text.ends_with(part.as_ref())))
            }
            (Function::Split, Value::String(text), Some(Value::String(separator))) => {
                self.take(text.len())?;
                let parts = text.split(separator.as_ref());
                let parts = parts.map(|part| Value::String(Cow::Owned(part.to_owned())));
                Ok(Value::List(parts.collect()))
            }
            (Function::Substring, Value::String(text), Some(Value::Int(from))) => {
                substring(&text, from, third.as_ref())
            }
            (Function::Int, value, None) => to_int(&value),
            (Function::Double, value, None) => to_double(&value),
            (Function::String, value, None) => match value.shown() {
                Some(text) => Ok(Value::String(Cow::Owned(text))),
                None => unfit(),
            },
            (Function::Duration, Value::String(text), None) => match parse_duration(&text) {
                Some(duration) => Ok(Value::Duration(duration)),
                None => Unknown::because(format!("{text:?} is no duration")),
            },
            (Function::Timestamp, Value::String(text), None) => match text.parse::<Timestamp>() {
                Ok(timestamp) => Ok(Value::Timestamp(timestamp)),
                Err(_) => Unknown::because(format!("{text:?} is no timestamp")),
            },
            _ => unfit(),
        }
    }
}

/// A duration as CEL writes it, such as `1h30m`, `90s` or `1.5h`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<SignedDuration> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    if text.len() > 64 || !text.chars().all(is_plain) {
        return None;
    }
    text.parse().ok()
}

/// The whole has the deciding value if one of its parts has, known or not the others. No part after that one is evaluated.
fn decided(parts: impl Iterator<Item = Result<bool>>, deciding: bool) -> Result<bool> {
    let mut unknown = None;
    for part in parts {
        match part {
            Ok(truth) if truth == deciding => return Ok(deciding),
            Ok(_) => {}
            Err(found) => unknown = Some(stronger(unknown, found, deciding)),
        }
    }
    unknown.map_or(Ok(!deciding), Err)
}

/// Of two unknown parts the one that the whole is unknown for. A part about a current version that does not exist hinders nothing,
/// so in `&&` any other one is stronger; in `||` that one is, like a part that is true.
fn stronger(known: Option<Unknown>, found: Unknown, deciding: bool) -> Unknown {
    let Some(known) = known else {
        return found;
    };
    let is_found = if deciding {
        found == Unknown::NoCurrent
    } else {
        known == Unknown::NoCurrent
    };
    if is_found { found } else { known }
}

fn unfit_reason() -> Unknown {
    Unknown::Because("its operands do not fit together".to_owned())
}

fn unfit<T>() -> Result<T> {
    Err(unfit_reason())
}

fn overflow() -> Unknown {
    Unknown::Because("a number is too large".to_owned())
}

/// The number, if it is one.
#[allow(clippy::cast_precision_loss)] // as in every language with two kinds of numbers
fn number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::Double(value) => Some(*value),
        _ => None,
    }
}

fn equal(left: &Value<'_>, right: &Value<'_>) -> Result<bool> {
    match (left, right) {
        (Value::Null, Value::Null) => Ok(true),
        (Value::Null, _) | (_, Value::Null) => Ok(false),
        (Value::Bool(left), Value::Bool(right)) => Ok(left == right),
        _ => compare(left, right).map(Ordering::is_eq),
    }
}

fn compare(left: &Value<'_>, right: &Value<'_>) -> Result<Ordering> {
    let ordering = match (left, right) {
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(right)),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Timestamp(left), Value::Timestamp(right)) => Some(left.cmp(right)),
        (Value::Duration(left), Value::Duration(right)) => Some(left.cmp(right)),
        _ => {
            let (Some(left), Some(right)) = (number(left), number(right)) else {
                return unfit();
            };
            left.partial_cmp(&right)
        }
    };
    ordering.ok_or_else(|| Unknown::Because("a number is NaN".to_owned()))
}

fn negate<'a>(value: &Value<'_>) -> Result<Value<'a>> {
    match value {
        Value::Int(value) => value.checked_neg().map(Value::Int).ok_or_else(overflow),
        Value::Double(value) => Ok(Value::Double(-value)),
        Value::Duration(value) => value
            .checked_neg()
            .map(Value::Duration)
            .ok_or_else(overflow),
        _ => unfit(),
    }
}

fn calculate<'a>(operation: Arithmetic, left: Value<'a>, right: Value<'a>) -> Result<Value<'a>> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => whole(operation, left, right),
        (Value::String(left), Value::String(right)) if operation == Arithmetic::Add => {
            let mut text = left.into_owned();
            text.push_str(&right);
            Ok(Value::String(Cow::Owned(text)))
        }
        (Value::Duration(left), Value::Duration(right)) => match operation {
            Arithmetic::Add => left.checked_add(right),
            Arithmetic::Subtract => left.checked_sub(right),
            _ => return unfit(),
        }
        .map(Value::Duration)
        .ok_or_else(overflow),
        (Value::Timestamp(left), Value::Timestamp(right)) => match operation {
            Arithmetic::Subtract => Ok(Value::Duration(left.duration_since(right))),
            _ => unfit(),
        },
        (Value::Timestamp(moment), Value::Duration(duration)) => match operation {
            Arithmetic::Add => moment.checked_add(duration),
            Arithmetic::Subtract => moment.checked_sub(duration),
            _ => return unfit(),
        }
        .map(Value::Timestamp)
        .map_err(|_| overflow()),
        (Value::Duration(duration), Value::Timestamp(moment)) => match operation {
            Arithmetic::Add => moment.checked_add(duration),
            _ => return unfit(),
        }
        .map(Value::Timestamp)
        .map_err(|_| overflow()),
        (left, right) => {
            let (Some(left), Some(right)) = (number(&left), number(&right)) else {
                return unfit();
            };
            Ok(Value::Double(match operation {
                Arithmetic::Add => left + right,
                Arithmetic::Subtract => left - right,
                Arithmetic::Multiply => left * right,
                Arithmetic::Divide => left / right,
                Arithmetic::Remainder => return unfit(),
            }))
        }
    }
}

fn whole<'a>(operation: Arithmetic, left: i64, right: i64) -> Result<Value<'a>> {
    let is_division = matches!(operation, Arithmetic::Divide | Arithmetic::Remainder);
    if is_division && right == 0 {
        return Unknown::because("a number is divided by 0");
    }
    let result = match operation {
        Arithmetic::Add => left.checked_add(right),
        Arithmetic::Subtract => left.checked_sub(right),
        Arithmetic::Multiply => left.checked_mul(right),
        Arithmetic::Divide => left.checked_div(right),
        Arithmetic::Remainder => left.checked_rem(right),
    };
    result.map(Value::Int).ok_or_else(overflow)
}

fn size<'a>(value: &Value<'_>) -> Result<Value<'a>> {
    let size = match value {
        Value::String(text) => text.chars().count(),
        Value::List(items) => items.len(),
        Value::Map(map) => map.entries()?.len(),
        _ => return unfit(),
    };
    i64::try_from(size).map(Value::Int).map_err(|_| overflow())
}

fn substring<'a>(text: &str, from: i64, to: Option<&Value<'_>>) -> Result<Value<'a>> {
    let length = text.chars().count();
    let to = match to {
        None => Some(length),
        Some(Value::Int(to)) => usize::try_from(*to).ok().filter(|to| *to <= length),
        Some(_) => return unfit(),
    };
    let from = usize::try_from(from).ok();
    match (from, to) {
        (Some(from), Some(to)) if from <= to => {
            let part = text.chars().skip(from).take(to - from);
            Ok(Value::String(Cow::Owned(part.collect())))
        }
        _ => Unknown::because(format!("{text:?} is too short for substring")),
    }
}

#[allow(clippy::cast_possible_truncation)] // the range was checked
fn to_int<'a>(value: &Value<'_>) -> Result<Value<'a>> {
    let int = match value {
        Value::Int(value) => Some(*value),
        // 2^63 is the first number that does not fit.
        Value::Double(value) if value.abs() < 9_223_372_036_854_775_808.0 => Some(*value as i64),
        Value::Double(_) => None,
        Value::String(text) => match text.trim().parse() {
            Ok(int) => Some(int),
            Err(_) => return Unknown::because(format!("{text:?} is no whole number")),
        },
        Value::Timestamp(value) => Some(value.as_second()),
        _ => return unfit(),
    };
    int.map(Value::Int).ok_or_else(overflow)
}

fn to_double<'a>(value: &Value<'_>) -> Result<Value<'a>> {
    if let Value::String(text) = value {
        return match text.trim().parse() {
            Ok(double) => Ok(Value::Double(double)),
            Err(_) => Unknown::because(format!("{text:?} is no number")),
        };
    }
    number(value).map_or_else(unfit, |double| Ok(Value::Double(double)))
}
