//! Expressions of ListOps: reading, value, the two ways of writing them down, and their own structure.
use std::fmt::Write;

/// An operation on a list of digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// The median; of an even number of arguments the mean of the two in the middle, rounded down.
    Med,
    /// The sum modulo 10.
    Sm,
}

impl Op {
    /// All four, in the order of their symbols.
    pub const ALL: [Op; 4] = [Op::Min, Op::Max, Op::Med, Op::Sm];

    /// As written.
    pub fn name(self) -> &'static str {
        match self {
            Op::Min => "MIN",
            Op::Max => "MAX",
            Op::Med => "MED",
            Op::Sm => "SM",
        }
    }

    /// Its value on at least one digit.
    fn apply(self, arguments: &mut [u8]) -> u8 {
        arguments.sort_unstable();
        let n = arguments.len();
        match self {
            Op::Min => arguments[0],
            Op::Max => arguments[n - 1],
            Op::Med => (arguments[(n - 1) / 2] + arguments[n / 2]) / 2,
            Op::Sm => (arguments.iter().map(|&d| u32::from(d)).sum::<u32>() % 10) as u8,
        }
    }
}

/// The sixteen symbols by number: digits, brackets, operators. A bracket and its operator are two symbols, as in the
/// published code.
pub const SYMBOLS: [&str; 16] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "[", "]", "MIN", "MAX", "MED", "SM"];
/// Number of the symbol `[`.
pub const OPEN: u8 = 10;
/// Number of the symbol `]`.
pub const CLOSE: u8 = 11;
/// Number of the first operator, in the order of [`Op::ALL`].
pub const FIRST_OP: u8 = 12;
/// Expressions nested deeper are refused (the official ones stop at 19).
pub const DEEPEST: usize = 1000;

/// A digit, or an operation on a list, as its symbols: always whole and well nested.
///
/// ```
/// use thruway::data::listops::Expression;
/// let e: Expression = "( ( ( ( [MAX 2 ) 9 ) ( ( ( ( [SM 4 ) 7 ) 0 ) ] ) ) ] )".parse().unwrap();
/// assert_eq!((e.value(), e.depth(), e.symbols().len()), (9, 2, 11));
/// assert_eq!(e.to_string(), "[ MAX 2 9 [ SM 4 7 0 ] ]");
/// assert_eq!(e.spans(), [(4, 10), (0, 11)]); // first symbol, one past the last
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Expression {
    symbols: Box<[u8]>,
}

impl Expression {
    /// Of symbols known to be whole.
    pub(super) fn of(symbols: Vec<u8>) -> Self {
        Expression { symbols: symbols.into() }
    }

    /// The symbols by number, see [`SYMBOLS`].
    pub fn symbols(&self) -> &[u8] {
        &self.symbols
    }

    /// What it evaluates to, 0 to 9.
    pub fn value(&self) -> u8 {
        let mut stack: Vec<(Op, Vec<u8>)> = Vec::new();
        for &s in &self.symbols {
            let digit = match s {
                OPEN => continue,
                CLOSE => {
                    let (op, mut arguments) = stack.pop().expect("well nested");
                    op.apply(&mut arguments)
                }
                s if s >= FIRST_OP => {
                    stack.push((Op::ALL[usize::from(s - FIRST_OP)], Vec::with_capacity(5)));
                    continue;
                }
                digit => digit,
            };
            match stack.last_mut() {
                Some((_, arguments)) => arguments.push(digit),
                None => return digit,
            }
        }
        unreachable!("an expression ends with its value")
    }

    /// Operations within one another: 0 for a digit.
    pub fn depth(&self) -> usize {
        let (mut depth, mut deepest) = (0usize, 0);
        for &s in &self.symbols {
            match s {
                OPEN => depth += 1,
                CLOSE => depth -= 1,
                _ => {}
            }
            deepest = deepest.max(depth);
        }
        deepest
    }

    /// Its own structure: where each operation, from bracket to bracket, begins and one past where it ends, inner ones first.
    pub fn spans(&self) -> Vec<(usize, usize)> {
        let (mut open, mut spans) = (Vec::new(), Vec::new());
        for (at, &s) in self.symbols.iter().enumerate() {
            match s {
                OPEN => open.push(at),
                CLOSE => spans.push((open.pop().expect("well nested"), at + 1)),
                _ => {}
            }
        }
        spans
    }

    /// The binary tree that the official files give it, as the spans of all its inner nodes: `[` and the operator, then one
    /// argument after the other, then `]`.
    pub fn binary_spans(&self) -> Vec<(usize, usize)> {
        let mut open: Vec<usize> = Vec::new();
        let mut spans = Vec::new();
        let mut ends_argument = |open: &[usize], end: usize| {
            if let Some(&start) = open.last() {
                spans.push((start, end));
            }
        };
        for (at, &s) in self.symbols.iter().enumerate() {
            match s {
                OPEN => open.push(at),
                CLOSE => {
                    ends_argument(&open, at + 1); // the operation itself
                    open.pop();
                    ends_argument(&open, at + 1); // as an argument of the one around it
                }
                // an operator after its bracket, or a digit after what came before it
                _ => ends_argument(&open, at + 1),
            }
        }
        spans
    }

    /// As in the official files, with the round brackets of the left-branching binary tree.
    pub fn official(&self) -> String {
        // One pair for each argument and one for the closing bracket stand open before an operator.
        let mut arguments = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        for &s in &self.symbols {
            match s {
                OPEN => {
                    open.push(arguments.len());
                    arguments.push(0usize);
                }
                CLOSE => {
                    open.pop();
                    open.last().into_iter().for_each(|&o| arguments[o] += 1);
                }
                s if s < OPEN => open.last().into_iter().for_each(|&o| arguments[o] += 1),
                _ => {}
            }
        }
        let mut arguments = arguments.into_iter();
        let (mut text, mut depth) = (String::new(), 0);
        for &s in &self.symbols {
            match s {
                OPEN => {
                    let n = arguments.next().expect("one an operation");
                    let _ = write!(text, "{}[", "( ".repeat(n + 1));
                    depth += 1;
                }
                CLOSE => {
                    depth -= 1;
                    text += if depth > 0 { "] ) ) " } else { "] ) " };
                }
                s if s >= FIRST_OP => {
                    let _ = write!(text, "{} ", SYMBOLS[usize::from(s)]);
                }
                s => {
                    let _ = write!(text, "{} {}", SYMBOLS[usize::from(s)], if depth > 0 { ") " } else { "" });
                }
            }
        }
        text.truncate(text.trim_end().len());
        text
    }
}

impl std::fmt::Display for Expression {
    /// The symbols with one blank between them: the text that models get.
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        for (i, &s) in self.symbols.iter().enumerate() {
            write!(f, "{}{}", if i > 0 { " " } else { "" }, SYMBOLS[usize::from(s)])?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Expression {
    type Err = String;

    /// Reads the official form, `( ( ( [MAX 2 ) 9 ) ] )`, or the same without its round brackets; `[` may stand apart from
    /// its operator. What is wrong, and where, is said in words.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut symbols = Vec::new();
        let mut round = 0;
        // of each operation under way: whether it has an argument
        let mut stack: Vec<bool> = Vec::new();
        for (at, word) in text.split_ascii_whitespace().enumerate() {
            let here = || format!("word {} ({word:?})", at + 1);
            if word == "(" || word == ")" {
                round += 1;
                continue;
            }
            let wants_operator = symbols.last() == Some(&OPEN);
            if symbols.len() > 1 && stack.is_empty() || (symbols.len() == 1 && symbols[0] < OPEN) {
                return Err(format!("{}: something after the end of the expression", here()));
            }
            let operator = match word.strip_prefix('[') {
                Some(_) if wants_operator => return Err(format!("{}: an operator is missing before it", here())),
                Some(rest) => {
                    if stack.len() == DEEPEST {
                        return Err(format!("{}: nested deeper than {DEEPEST}", here()));
                    }
                    symbols.push(OPEN);
                    if let Some(has) = stack.last_mut() {
                        *has = true;
                    }
                    stack.push(false);
                    if rest.is_empty() {
                        continue;
                    }
                    Some(rest)
                }
                None if wants_operator => Some(word),
                None => None,
            };
            if let Some(name) = operator {
                let Some(op) = Op::ALL.iter().position(|op| op.name() == name) else {
                    return Err(format!("{}: unknown operator {name:?}, known: MIN, MAX, MED, SM", here()));
                };
                symbols.push(FIRST_OP + op as u8);
                continue;
            }
            match (word, word.as_bytes()) {
                ("]", _) => match stack.pop() {
                    None => return Err(format!("{}: closes nothing", here())),
                    Some(false) => return Err(format!("{}: the operation has no argument", here())),
                    Some(true) => symbols.push(CLOSE),
                },
                (_, [d @ b'0'..=b'9']) => {
                    symbols.push(d - b'0');
                    if let Some(has) = stack.last_mut() {
                        *has = true;
                    }
                }
                _ => return Err(format!("{}: neither a digit nor a bracket", here())),
            }
        }
        if !stack.is_empty() {
            return Err(format!("unbalanced: {} of the brackets [ are never closed", stack.len()));
        }
        if symbols.is_empty() {
            return Err("no expression".into());
        }
        let expression = Expression::of(symbols);
        if round > 0 {
            let mut joined = String::new();
            for word in text.split_ascii_whitespace() {
                joined += word;
                joined += if word == "[" { "" } else { " " };
            }
            let official = expression.official();
            let mut pairs = joined.split_ascii_whitespace().zip(official.split_ascii_whitespace()).enumerate();
            if let Some((at, (got, expected))) = pairs.find(|(_, (a, b))| a != b) {
                let at = at + 1;
                return Err(format!("unbalanced round brackets: word {at} is {got:?}, expected {expected:?}"));
            }
            let count = |text: &str| text.split_ascii_whitespace().count();
            let (got, expected) = (count(&joined), count(&official));
            if got != expected {
                return Err(format!("unbalanced round brackets: {got} words, expected {expected}"));
            }
        }
        Ok(expression)
    }
}
