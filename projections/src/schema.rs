//! A read model's place in the database. Each version of a read model owns a schema (`profiles_1`), so that a rebuild can
//! fill a new one beside the old.

/// A read model's place in the database.
pub struct Schema {
    pub name: &'static str,
    pub version: i32,
    /// SQL that makes its tables; `{schema}` stands for its schema.
    pub tables: &'static str,
}

impl Schema {
    /// `profiles_1`.
    pub fn qualifier(&self) -> String {
        format!("{}_{}", self.name, self.version)
    }

    /// SQL with `{schema}` put in.
    pub fn sql(&self, template: &str) -> String {
        template.replace("{schema}", &self.qualifier())
    }
}
