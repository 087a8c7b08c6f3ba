package contract

import "github.com/santhosh-tekuri/jsonschema/v6"

// shape is OpenAPI 3.1 as far as we use it. What is not in it is refused, so
// that a slip in a name shows; whoever needs more of OpenAPI adds it. That
// schemas are JSON Schema, is looked at when they are compiled.
var shape = func() *jsonschema.Schema {
	const at = "https://simlatch.example/shape.json"
	doc, err := readYAML([]byte(shapeYAML))
	if err != nil {
		panic(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(at, doc); err != nil {
		panic(err)
	}
	return c.MustCompile(at)
}()

const shapeYAML = `
$schema: https://json-schema.org/draft/2020-12/schema
type: object
required: [openapi, info, servers, tags, security, paths, components]
additionalProperties: false
properties:
  openapi: {const: 3.1.0}
  info:
    type: object
    required: [title, version]
    additionalProperties: false
    properties:
      title: {type: string}
      summary: {type: string}
      version: {type: string}
      description: {type: string}
      license:
        type: object
        required: [name]
        additionalProperties: false
        properties: {name: {type: string}, identifier: {type: string}}
  servers: {$ref: "#/$defs/servers"}
  tags:
    type: array
    items:
      type: object
      required: [name]
      additionalProperties: false
      properties: {name: {type: string}, description: {type: string}}
  security: {$ref: "#/$defs/security"}
  paths:
    type: object
    propertyNames: {pattern: "^/"}
    additionalProperties: {$ref: "#/$defs/path"}
  components:
    type: object
    additionalProperties: false
    properties:
      securitySchemes: {type: object, additionalProperties: {$ref: "#/$defs/securityScheme"}}
      parameters: {type: object, additionalProperties: {$ref: "#/$defs/parameter"}}
      headers: {$ref: "#/$defs/headers"}
      requestBodies: {type: object, additionalProperties: {$ref: "#/$defs/requestBody"}}
      responses: {type: object, additionalProperties: {$ref: "#/$defs/response"}}
      schemas: {$ref: "#/$defs/schemas"}
$defs:
  servers:
    type: array
    minItems: 1
    items:
      type: object
      required: [url]
      additionalProperties: false
      properties: {url: {type: string, pattern: "^/"}, description: {type: string}}
  security:
    type: array
    items:
      type: object
      additionalProperties: {type: array, items: {type: string}}
  securityScheme:
    type: object
    required: [type]
    properties: {description: {type: string}}
    oneOf:
      - required: [scheme]
        properties: {type: {const: http}, scheme: {type: string}}
      - required: [in, name]
        properties: {type: {const: apiKey}, in: {enum: [query, header, cookie]}, name: {type: string}}
      - required: [flows]
        properties:
          type: {const: oauth2}
          flows:
            type: object
            additionalProperties: false
            properties:
              clientCredentials:
                type: object
                required: [tokenUrl, scopes]
                additionalProperties: false
                properties:
                  tokenUrl: {type: string, format: uri-reference}
                  scopes: {type: object, additionalProperties: {type: string}}
    unevaluatedProperties: false
  reference:
    type: object
    required: [$ref]
    additionalProperties: false
    properties: {$ref: {type: string, format: uri-reference}}
  path:
    type: object
    additionalProperties: false
    properties:
      summary: {type: string}
      description: {type: string}
      servers: {$ref: "#/$defs/servers"}
      parameters: {$ref: "#/$defs/parameters"}
      get: {$ref: "#/$defs/operation"}
      put: {$ref: "#/$defs/operation"}
      post: {$ref: "#/$defs/operation"}
      delete: {$ref: "#/$defs/operation"}
      patch: {$ref: "#/$defs/operation"}
  operation:
    type: object
    required: [responses]
    additionalProperties: false
    properties:
      tags: {type: array, items: {type: string}}
      operationId: {type: string}
      summary: {type: string}
      description: {type: string}
      security: {$ref: "#/$defs/security"}
      parameters: {$ref: "#/$defs/parameters"}
      requestBody: {$ref: "#/$defs/requestBody"}
      responses:
        type: object
        minProperties: 1
        additionalProperties: false
        patternProperties: {"^([1-5][0-9][0-9]|[1-5]XX|default)$": {$ref: "#/$defs/response"}}
      callbacks:
        type: object
        additionalProperties: {type: object, additionalProperties: {$ref: "#/$defs/path"}}
  parameters: {type: array, uniqueItems: true, items: {$ref: "#/$defs/parameter"}}
  parameter:
    if: {required: [$ref]}
    then: {$ref: "#/$defs/reference"}
    else:
      type: object
      required: [name, in, schema]
      additionalProperties: false
      properties:
        name: {type: string}
        in: {enum: [query, header, path, cookie]}
        required: {type: boolean}
        description: {type: string}
        schema: {$ref: "#/$defs/schema"}
        example: true
      if: {properties: {in: {const: path}}}
      then: {required: [required], properties: {required: {const: true}}}
  headers: {type: object, additionalProperties: {$ref: "#/$defs/header"}}
  header:
    if: {required: [$ref]}
    then: {$ref: "#/$defs/reference"}
    else:
      type: object
      required: [schema]
      additionalProperties: false
      properties:
        required: {type: boolean}
        description: {type: string}
        schema: {$ref: "#/$defs/schema"}
        example: true
  requestBody:
    if: {required: [$ref]}
    then: {$ref: "#/$defs/reference"}
    else:
      type: object
      required: [content]
      additionalProperties: false
      properties:
        required: {type: boolean}
        description: {type: string}
        content: {$ref: "#/$defs/content"}
  response:
    if: {required: [$ref]}
    then: {$ref: "#/$defs/reference"}
    else:
      type: object
      required: [description]
      additionalProperties: false
      properties:
        description: {type: string}
        headers: {$ref: "#/$defs/headers"}
        content: {$ref: "#/$defs/content"}
  content:
    type: object
    propertyNames: {pattern: "^[a-z]+/[a-z0-9.+-]+$"}
    additionalProperties:
      type: object
      required: [schema]
      additionalProperties: false
      not: {required: [example, examples]}
      properties:
        schema: {$ref: "#/$defs/schema"}
        example: true
        examples:
          type: object
          additionalProperties:
            type: object
            required: [value]
            additionalProperties: false
            properties: {summary: {type: string}, description: {type: string}, value: true}
  schemas: {type: object, additionalProperties: {$ref: "#/$defs/schema"}}
  schema:
    type: object
    additionalProperties: false
    properties:
      $ref: {type: string, pattern: "^#/components/schemas/"}
      description: {type: string}
      type: true
      format: {enum: [date-time, password, uri, uuid]}
      const: true
      enum: {type: array, minItems: 1, uniqueItems: true}
      pattern: {type: string, format: regex}
      minLength: true
      maxLength: true
      minimum: true
      maximum: true
      minItems: true
      maxItems: true
      items: {$ref: "#/$defs/schema"}
      required: true
      properties: {$ref: "#/$defs/schemas"}
      additionalProperties: {anyOf: [{type: boolean}, {$ref: "#/$defs/schema"}]}
      allOf: {type: array, items: {$ref: "#/$defs/schema"}}
      oneOf: {type: array, items: {$ref: "#/$defs/schema"}}
      example: true
      examples: {type: array}
`
