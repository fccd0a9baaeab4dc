// The page's only code of its own: which document to draw, and how.

// A form would start with the examples in it and send them: a tenant, a version and a key that are not the reader's. Where
// a parameter may be left out, its example moves into the words.
const leaveOut = (spec) => {
  for (const operation of Object.values(spec.paths ?? {}).flatMap((item) => Object.values(item))) {
    for (const parameter of operation.parameters ?? []) {
      if (parameter.required || parameter.example === undefined) continue;
      parameter.description = `${parameter.description} For example \`${parameter.example}\`.`;
      delete parameter.example;
    }
  }
  return spec;
};

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#page",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  docExpansion: "list",
  filter: true,
  persistAuthorization: false,
  tryItOutEnabled: false,
  validatorUrl: null,
  plugins: [
    () => ({
      statePlugins: {
        spec: { wrapActions: { updateJsonSpec: (draw) => (spec) => draw(leaveOut(spec)) } },
      },
    }),
  ],
});
